"""Where model files come from: the official host, or the package index by way of CTranslate2's format."""
