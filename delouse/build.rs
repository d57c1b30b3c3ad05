//! Tells the crate whether it is compiled without optimisation, which none of rustc's own `cfg`s says: its answers then take
//! several times as long, and say so.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(delouse_unoptimized)");
    // Of delouse itself: with its override in the profile, cargo passes the level of the override.
    if std::env::var("OPT_LEVEL").is_ok_and(|level| level == "0") {
        println!("cargo::rustc-cfg=delouse_unoptimized");
    }
}
