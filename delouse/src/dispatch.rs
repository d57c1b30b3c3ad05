//! Selects code by the feature `dump` of this crate, in macros that expand in other crates.
//!
//! There, `#[cfg(feature = "dump")]` would test a feature of the other crate.

/// `{ dump on } else { dump off }`: expands to the one that this crate was built for.
#[cfg(feature = "dump")]
#[doc(hidden)]
#[macro_export]
macro_rules! __if_dump {
    ({ $($dump:tt)* } else { $($plain:tt)* }) => { $($dump)* };
}

/// `{ dump on } else { dump off }`: expands to the one that this crate was built for.
#[cfg(not(feature = "dump"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __if_dump {
    ({ $($dump:tt)* } else { $($plain:tt)* }) => { $($plain)* };
}
