"""The commands: `odernn train`, `odernn memory` and so on, and the scripts that do the same."""
