"""Reading image files: decoding to chips of RGB or C bands, inspection."""
