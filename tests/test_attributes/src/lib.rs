//! Only the package of its tests.
