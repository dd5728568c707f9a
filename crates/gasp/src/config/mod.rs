//! A guest from a TOML file.
