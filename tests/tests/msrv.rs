//! The stated minimum version of Rust: no dependency of the library asks for more.
//!
//! That our own code keeps to it is checked by clippy (`incompatible_msrv`), and by building with that very
//! toolchain where it is installed: see `.ci/run`.

use std::process::Command;

fn version(text: &str) -> Vec<u32> {
    let mut parts: Vec<u32> = text.split('.').map(|part| part.parse().unwrap()).collect();
    parts.resize(3, 0);
    parts
}

#[test]
fn no_dependency_asks_for_a_newer_rust() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--all-features"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let package = |id: &serde_json::Value| packages.iter().find(|p| p["id"] == *id).unwrap();
    let ours = packages.iter().find(|p| p["name"] == "delouse").unwrap();
    let stated = version(ours["rust_version"].as_str().unwrap());

    let mut todo = vec![ours["id"].clone()];
    let mut seen = Vec::new();
    while let Some(id) = todo.pop() {
        if seen.contains(&id) {
            continue;
        }
        let name = &package(&id)["name"];
        if let Some(asked) = package(&id)["rust_version"].as_str() {
            assert!(version(asked) <= stated, "{name} asks for {asked}");
        }
        let node = nodes.iter().find(|n| n["id"] == id).unwrap();
        for dependency in node["deps"].as_array().unwrap() {
            // Not what only tests use, and not what only other systems build.
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            if kinds.iter().any(|k| k["kind"] != "dev" && k["target"].is_null()) {
                todo.push(dependency["pkg"].clone());
            }
        }
        seen.push(id);
    }
    assert!(seen.len() > 50, "all of dropshot's tree: {}", seen.len());
}
