//! What a program may choose about delouse.

/// How delouse behaves in this program. With the feature `debug` off it does nothing.
#[derive(Clone, Debug, Default)]
pub struct Config {
    bind: Option<String>,
}

impl Config {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The address that the debug server listens on, such as `127.0.0.1:7132`.
    pub fn bind(mut self, address: impl Into<String>) -> Self {
        self.bind = Some(address.into());
        self
    }
}
