//! `/elf/info` as text: first what the debug information allows and what to add, then the facts.

use std::fmt::{self, Display};

use super::format::size;
use super::formats::Renders;
use crate::debuginfo::elf::{
    Answer, DebugInformation, DebugLevel, DebugLocation, ElfInfo, Endianness, Quality, Relro, UnwindTables,
};

/// Crates and dependencies that the text lists; JSON has them all.
const LISTED: usize = 20;

impl Renders for ElfInfo {
    fn text(&self) -> String {
        Page(self).to_string()
    }
}

struct Page<'i>(&'i ElfInfo);

impl Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.0;
        writeln!(f, "{}", info.path.display())?;
        writeln!(f, "Debug information: {}", summary(&info.debug))?;
        answers(f, &info.answers)?;
        debug(f, &info.debug)?;
        facts(f, info)?;
        if !info.problems.is_empty() {
            writeln!(f, "\nProblems")?;
            info.problems.iter().try_for_each(|problem| writeln!(f, "  {problem}"))?;
        }
        dependencies(f, info)?;
        sections(f, info)
    }
}

/// One line: how much there is, and where.
fn summary(debug: &DebugInformation) -> String {
    let level = match debug.level {
        DebugLevel::Full => "full types",
        DebugLevel::Limited => "functions and lines, no types",
        DebugLevel::LineTables => "line tables only",
        DebugLevel::None if debug.standard_library > DebugLevel::None => "none (only std has some)",
        DebugLevel::None => "none",
    };
    let place = match debug.location {
        DebugLocation::None | DebugLocation::Embedded => String::new(),
        DebugLocation::SeparateFile => debug
            .separate
            .as_ref()
            .and_then(|search| search.found.as_ref())
            .map_or(String::new(), |found| format!(", in {}", found.display())),
        DebugLocation::Packed => debug
            .split
            .as_ref()
            .and_then(|split| split.package.as_ref())
            .map_or(String::new(), |package| format!(", in {package}")),
        DebugLocation::Unpacked => ", in .dwo files".to_owned(),
    };
    format!("{level}{place}")
}

fn answers(f: &mut fmt::Formatter<'_>, answers: &[Answer]) -> fmt::Result {
    writeln!(f)?;
    for answer in answers {
        let quality = match answer.quality {
            Quality::Good => "good",
            Quality::Degraded => "degraded",
            Quality::Missing => "MISSING",
        };
        writeln!(f, "  {quality:<8}  {:<17}  {}", answer.endpoint, answer.shows)?;
    }
    if let Some(setting) = answers.iter().find_map(|answer| answer.setting.as_ref()) {
        writeln!(f, "\nFor better answers, in Cargo.toml (in the profile that you build with):\n")?;
        setting.lines().try_for_each(|line| writeln!(f, "{}", format!("    {line}").trim_end()))?;
    }
    Ok(())
}

fn debug(f: &mut fmt::Formatter<'_>, debug: &DebugInformation) -> fmt::Result {
    if let Some(split) = debug.split.as_ref().filter(|split| split.found < split.units) {
        writeln!(f, "\n{} of {} split units found. Missing:", split.found, split.units)?;
        split.missing.iter().try_for_each(|file| writeln!(f, "  {file}"))?;
    }
    if let Some(search) = debug.separate.as_ref().filter(|search| search.found.is_none()) {
        writeln!(f, "\nNo separate debug file. Looked for:")?;
        for path in &search.searched {
            match search.rejected.iter().find(|rejected| rejected.path == *path) {
                Some(rejected) => writeln!(f, "  {}: {}", path.display(), rejected.reason)?,
                None => writeln!(f, "  {}", path.display())?,
            }
        }
        search.hint.iter().try_for_each(|hint| writeln!(f, "  {hint}"))?;
    }
    if debug.mixed {
        writeln!(f, "\nCrates with less debug information than others:")?;
        let poor: Vec<_> = debug.crates.iter().filter(|c| c.level < debug.level).collect();
        for krate in poor.iter().take(LISTED) {
            writeln!(f, "  {:<12}  {}", level_word(krate.level), krate.name)?;
        }
        if poor.len() > LISTED {
            writeln!(f, "  and {} more: see the JSON", poor.len() - LISTED)?;
        }
    }
    Ok(())
}

fn level_word(level: DebugLevel) -> &'static str {
    match level {
        DebugLevel::None => "none",
        DebugLevel::LineTables => "line tables",
        DebugLevel::Limited => "limited",
        DebugLevel::Full => "full",
    }
}

fn facts(f: &mut fmt::Formatter<'_>, info: &ElfInfo) -> fmt::Result {
    let debug = &info.debug;
    let yes_no = |yes| if yes { "yes" } else { "no" };
    let order = match info.endianness {
        Endianness::Little => "little-endian",
        Endianness::Big => "big-endian",
    };
    let relro = match info.relro {
        Relro::None => "no",
        Relro::Partial => "partial",
        Relro::Full => "full",
    };
    let fact =
        |f: &mut fmt::Formatter<'_>, name: &str, value: &dyn Display| writeln!(f, "  {name:<13} {value}");
    writeln!(f, "\nFile")?;
    fact(f, "type", &format_args!("{}, {}, {}-bit, {order}", info.file_type, info.machine, info.class))?;
    fact(f, "size", &size(info.file_size))?;
    fact(f, "build-id", &info.build_id.as_deref().unwrap_or("none"))?;
    fact(f, "entry", &format_args!("{:#x}", info.entry))?;
    fact(f, "interpreter", &info.interpreter.as_deref().unwrap_or("none: statically linked"))?;
    fact(f, "needs", &if info.needed.is_empty() { "nothing".to_owned() } else { info.needed.join(", ") })?;
    info.rpath.iter().try_for_each(|path| fact(f, "rpath", path))?;
    info.runpath.iter().try_for_each(|path| fact(f, "runpath", path))?;
    let (pie, nx, stripped) = (yes_no(info.pie), yes_no(info.nx), yes_no(info.stripped));
    fact(f, "hardening", &format_args!("PIE {pie}, RELRO {relro}, NX {nx}"))?;
    fact(f, "stripped", &stripped)?;
    if let Some(tables) = &info.unwind_tables {
        fact(f, "unwind tables", &unwind_tables(tables))?;
    }
    info.comments.iter().try_for_each(|comment| fact(f, "made by", comment))?;
    if debug.units > 0 {
        let versions: Vec<_> = debug.dwarf_versions.iter().map(u16::to_string).collect();
        let sampled = if debug.sampled { ", only a part looked at" } else { "" };
        let compressed = debug.compressed.as_ref().map_or(String::new(), |how| format!(", {how}"));
        fact(
            f,
            "DWARF",
            &format_args!(
                "version {}, {} units, {}{compressed}{sampled}",
                versions.join(" and "),
                debug.units,
                size(debug.size)
            ),
        )?;
    }
    Ok(())
}

/// Which there are, and how many functions have none.
fn unwind_tables(tables: &UnwindTables) -> String {
    let sections = if tables.sections.is_empty() { "none".to_owned() } else { tables.sections.join(", ") };
    if tables.missing == 0 {
        return sections;
    }
    let (missing, functions) = (tables.missing, tables.functions);
    let more = if missing > tables.examples.len() as u64 { ", …" } else { "" };
    format!("{sections}; {missing} of {functions} functions have none ({}{more})", tables.examples.join(", "))
}

fn dependencies(f: &mut fmt::Formatter<'_>, info: &ElfInfo) -> fmt::Result {
    let Some(dependencies) = &info.dependencies else { return Ok(()) };
    writeln!(f, "\nBuilt from {} crates (cargo auditable)", dependencies.len())?;
    for dependency in dependencies.iter().take(LISTED) {
        writeln!(f, "  {} {} ({})", dependency.name, dependency.version, dependency.source)?;
    }
    if dependencies.len() > LISTED {
        writeln!(f, "  and {} more: see the JSON", dependencies.len() - LISTED)?;
    }
    Ok(())
}

fn sections(f: &mut fmt::Formatter<'_>, info: &ElfInfo) -> fmt::Result {
    writeln!(f, "\nSections")?;
    let width = info.sections.iter().map(|s| s.name.chars().count()).max().unwrap_or(0).min(40);
    for section in &info.sections {
        let (name, address) = (&section.name, section.address);
        let line =
            format!("  {name:<width$}  {address:>#14x}  {:>10}  {}", size(section.size), section.flags);
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debuginfo::elf::inspect;

    #[test]
    fn our_own_page_begins_with_what_matters() {
        let page = inspect(&std::env::current_exe().unwrap()).unwrap().text();
        let lines: Vec<_> = page.lines().collect();
        assert!(lines[0].starts_with('/'), "{page}");
        assert!(lines[1].starts_with("Debug information: full types"), "{page}");
        assert!(lines[3].contains("  /diagnosis  ") && lines[5].contains("  /stacktrace/tokio  "), "{page}");
        assert!(lines[6].starts_with("  good      /stacktrace/rust"), "{page}");
        assert!(page.contains("made by       rustc version"), "{page}");
        assert!(page.contains("\n  .text "), "{page}");
        assert!(lines.iter().all(|line| line.trim_end() == *line), "trailing blanks:\n{page}");
    }
}
