//! The choice between debug on and off, for code that expands in other crates.
//!
//! A `#[cfg(feature = "debug")]` in such code would ask about a feature of the crate it lands in. This macro asks
//! about ours.

/// `{ debug on } else { debug off }`: expands to the one that this crate was built for.
#[cfg(feature = "debug")]
#[doc(hidden)]
#[macro_export]
macro_rules! __if_debug {
    ({ $($debug:tt)* } else { $($plain:tt)* }) => { $($debug)* };
}

/// `{ debug on } else { debug off }`: expands to the one that this crate was built for.
#[cfg(not(feature = "debug"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __if_debug {
    ({ $($debug:tt)* } else { $($plain:tt)* }) => { $($plain)* };
}
