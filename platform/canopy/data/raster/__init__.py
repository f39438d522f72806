"""Reading image files: decoding to RGB chips, inspection."""
