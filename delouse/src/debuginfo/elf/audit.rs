//! The dependency list that `cargo auditable` embeds: section `.dep-v0`, JSON compressed with zlib.
//! The format is described in the cargo-auditable repository, PARSING.md.

use serde::Deserialize;

use super::contents::{Contents, inflate};
use super::image::{Image, Section};
use super::model::Dependency;

/// A program of 1,000 crates needs about 100 kB.
const MAX_JSON: u64 = 8_000_000;
const MAX_DEFLATED: u64 = 4 << 20;
const MAX_PACKAGES: usize = 20_000;

#[derive(Deserialize)]
struct List {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    source: String,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    root: bool,
}

/// Reads the list, or says what is wrong with it.
pub(crate) fn dependencies(image: &Image, section: &Section) -> Result<Vec<Dependency>, String> {
    let contents = Contents::open(image, section).map_err(|e| format!(".dep-v0: {e}"))?;
    let mut buf = Vec::new();
    let deflated = contents.window(0..MAX_DEFLATED, &mut buf).map_err(|e| format!(".dep-v0: {e}"))?;
    parse(deflated).map_err(|e| format!(".dep-v0: {e}"))
}

fn parse(deflated: &[u8]) -> Result<Vec<Dependency>, String> {
    let (json, cut) = inflate(deflated, MAX_JSON);
    if cut {
        return Err(if json.len() as u64 == MAX_JSON {
            format!("more than {} MB of text, not read", MAX_JSON / 1_000_000)
        } else {
            "damaged compressed data".to_owned()
        });
    }
    let list: List = serde_json::from_slice(&json).map_err(|e| format!("not a dependency list: {e}"))?;
    let packages = list.packages.into_iter().take(MAX_PACKAGES);
    Ok(packages
        .map(|p| Dependency {
            name: p.name,
            version: p.version,
            source: p.source,
            build_only: p.kind.as_deref() == Some("build"),
            root: p.root,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        let bomb = deflate(&vec![b' '; 64 << 20]);
        assert!(bomb.len() < 1 << 20);
        assert_eq!(parse(&bomb).unwrap_err(), "more than 8 MB of text, not read");
    }

    #[test]
    fn damage_is_told() {
        let whole = deflate(br#"{"packages":[{"name":"a","version":"1.0.0","source":"crates.io"}]}"#);
        assert_eq!(parse(&whole[..whole.len() / 2]).unwrap_err(), "damaged compressed data");
        assert!(parse(&deflate(b"[1,2]")).unwrap_err().starts_with("not a dependency list"));
        assert!(parse(&deflate("[".repeat(100_000).as_bytes())).is_err());
    }
}
