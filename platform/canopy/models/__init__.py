"""Networks: timm backbones, CBAM attention, heads, weights on disk."""
