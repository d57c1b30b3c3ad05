//! Folded stacks, for flamegraph.pl, inferno and speedscope: `outermost;…;innermost COUNT`, one stack per line.

use std::fmt::Write as _;

use super::{Profile, Site};

/// One line for each sample, with what it waits for as its innermost frame.
pub(crate) fn folded(profile: &Profile) -> String {
    let mut out = String::new();
    for sample in &profile.samples {
        for (at, site) in sample.frames.iter().rev().enumerate() {
            if at > 0 {
                out.push(';');
            }
            push(&mut out, site);
        }
        if let Some((_, wait)) = sample.labels.iter().find(|(key, _)| *key == "wait") {
            let _infallible = write!(out, ";[{wait}]");
        }
        let _infallible = writeln!(out, " {}", sample.count);
    }
    out
}

/// `function (file:line)`, without what separates frames and lines.
fn push(out: &mut String, site: &Site) {
    let separates = |letter: char| letter == ';' || letter.is_control();
    out.extend(site.function.chars().map(|letter| if separates(letter) { ',' } else { letter }));
    if !site.file.is_empty() {
        let file: String =
            site.file.chars().map(|letter| if separates(letter) { ',' } else { letter }).collect();
        let _infallible = write!(out, " ({file}:{})", site.line);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Sample, tests::profile};
    use super::*;

    #[test]
    fn one_line_per_stack() {
        assert_eq!(folded(&profile(8)), "app::often (src/main.rs:10) 6\napp::rare (src/main.rs:10) 2\n");
        let frames = ["inner<[u8; 4]>", "outer\n"].map(|name| Site::named(name.to_owned()));
        let sample = Sample { frames: frames.into(), labels: vec![("wait", "mutex".to_owned())], count: 3 };
        assert_eq!(folded(&Profile { samples: vec![sample] }), "outer,;inner<[u8, 4]>;[mutex] 3\n");
    }
}
