//! Against binaries that rustc and the binutils make on the spot.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::*;

/// A program with an async function, so that a full build has types of every kind.
const PROGRAM: &str = r#"
    async fn leaf(text: String) -> usize { text.len() }
    fn main() {
        let future = std::pin::pin!(leaf("a".to_owned()));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        println!("{:?}", future.poll(&mut context));
    }
    use std::future::Future;
"#;

struct Build {
    directory: TempDir,
}

impl Build {
    fn new() -> Build {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("victim.rs"), PROGRAM).unwrap();
        Build { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Builds the program as `name` with these options of `-C`. Its crate is called tokio, so that it has
    /// the types that answers about tasks depend on.
    fn rustc(&self, name: &str, codegen: &[&str]) -> PathBuf {
        self.rustc_as("tokio", name, codegen)
    }

    fn rustc_as(&self, crate_name: &str, name: &str, codegen: &[&str]) -> PathBuf {
        let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
        command.current_dir(self.directory.path()).args(["--edition=2021", "victim.rs", "-o", name]);
        command.args(["--crate-name", crate_name]);
        codegen.iter().for_each(|option| {
            command.args(["-C", option]);
        });
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.path(name)
    }
}

/// Runs one of the binutils; `None` where it is not installed.
fn tool(name: &str, arguments: &[&Path]) -> Option<String> {
    let output = match Command::new(name).args(arguments).output() {
        Ok(output) => output,
        Err(e) => {
            skipped!("{name}: {e}");
            return None;
        }
    };
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn arguments<'a>(flags: &[&'a str], paths: &[&'a Path]) -> Vec<&'a Path> {
    flags.iter().map(|flag| Path::new(*flag)).chain(paths.iter().copied()).collect()
}

fn quality(info: &ElfInfo, endpoint: &str) -> Quality {
    info.answers.iter().find(|answer| answer.endpoint == endpoint).unwrap().quality
}

/// The test program, as the kernel has it.
fn inspect_own() -> Result<ElfInfo, ElfError> {
    let own = crate::targets::own_object().unwrap();
    let (name, replaced) = own.name();
    inspect_as(&own.opened, name, replaced)
}

#[test]
fn every_debug_level_of_cargo_is_told_apart() {
    let build = Build::new();
    let levels = [
        ("0", DebugLevel::None),
        ("line-directives-only", DebugLevel::None),
        ("line-tables-only", DebugLevel::LineTables),
        ("1", DebugLevel::Limited),
        ("2", DebugLevel::Full),
    ];
    for (option, level) in levels {
        for more in [&[][..], &["opt-level=2", "lto=fat", "codegen-units=1"], &["dwarf-version=5"]] {
            if option == "line-directives-only" && more == ["dwarf-version=5"] {
                continue; // rustc 1.95 itself crashes on it
            }
            let debuginfo = format!("debuginfo={option}");
            let path = build.rustc("victim", &[&[debuginfo.as_str()], more].concat());
            let info = inspect(&path).unwrap();
            let debug = &info.debug;
            assert_eq!(debug.level, level, "{option} {more:?}: {debug:?}");
            assert_eq!(debug.standard_library, DebugLevel::Limited, "{option} {more:?}: {debug:?}");
            assert_eq!(info.problems, [] as [&str; 0], "{option} {more:?}");
            assert!(!info.stripped && !debug.sampled);
            match level {
                DebugLevel::None => {
                    assert_eq!((debug.location, debug.units), (DebugLocation::None, 0));
                    assert!(debug.crates.is_empty());
                    assert_eq!(quality(&info, "/stacktrace/tokio"), Quality::Missing);
                    assert_eq!(quality(&info, "/stacktrace/rust"), Quality::Degraded);
                }
                _ => {
                    assert_eq!(debug.location, DebugLocation::Embedded);
                    assert!(debug.crates.iter().any(|c| c.name == "tokio" && c.level == level));
                    let tokio = if level == DebugLevel::Full { Quality::Good } else { Quality::Degraded };
                    assert_eq!(quality(&info, "/stacktrace/tokio"), tokio);
                    assert_eq!(quality(&info, "/stacktrace/rust"), Quality::Good);
                }
            }
            let settings: Vec<_> = info.answers.iter().filter_map(|a| a.setting.as_deref()).collect();
            assert_eq!(settings.is_empty(), level == DebugLevel::Full);
            assert!(settings.iter().all(|s| s.contains("[profile.release]\ndebug = \"full\"")));
            if more == ["dwarf-version=5"] && level > DebugLevel::None {
                assert!(debug.dwarf_versions.contains(&5), "{debug:?}");
            }
        }
    }
}

#[test]
fn a_program_without_types_of_tokio_is_no_good() {
    let build = Build::new();
    let info = inspect(&build.rustc_as("service", "service", &["debuginfo=2"])).unwrap();
    assert_eq!(info.debug.level, DebugLevel::Full);
    assert_eq!(quality(&info, "/stacktrace/tokio"), Quality::Degraded);
    assert_eq!(quality(&info, "/stacktrace/rust"), Quality::Good);
    assert!(info.answers[0].setting.as_ref().unwrap().contains("[profile.release.package.\"*\"]"));
}

#[test]
fn stripped_programs() {
    let build = Build::new();
    let debuginfo = inspect(&build.rustc("a", &["debuginfo=2", "strip=debuginfo"])).unwrap();
    assert_eq!((debuginfo.debug.level, debuginfo.stripped), (DebugLevel::None, false));
    assert_eq!(debuginfo.debug.standard_library, DebugLevel::None);
    assert_eq!(quality(&debuginfo, "/stacktrace/rust"), Quality::Degraded);
    let symbols = inspect(&build.rustc("b", &["debuginfo=2", "strip=symbols"])).unwrap();
    assert_eq!((symbols.debug.level, symbols.stripped), (DebugLevel::None, true));
    assert_eq!(quality(&symbols, "/stacktrace/rust"), Quality::Missing);
    let search = symbols.debug.separate.as_ref().unwrap();
    assert_eq!(search.found, None);
    assert!(search.searched.contains(&build.path("b.debug")), "{search:?}");
    assert!(symbols.answers[0].setting.as_ref().unwrap().contains("strip = \"none\""));
}

#[test]
fn split_debug_information_is_followed_and_checked() {
    let build = Build::new();
    for version in ["dwarf-version=4", "dwarf-version=5"] {
        let path = build.rustc("packed", &["debuginfo=2", "split-debuginfo=packed", version]);
        let info = inspect(&path).unwrap();
        let split = info.debug.split.as_ref().unwrap();
        assert_eq!(
            info.debug.location,
            DebugLocation::Packed,
            "{version} {:?} {:?}",
            info.debug,
            info.problems
        );
        assert_eq!((info.debug.level, split.found), (DebugLevel::Full, split.units), "{version}");
        assert_eq!(split.package.as_deref(), build.path("packed.dwp").to_str());
        assert_eq!(quality(&info, "/stacktrace/tokio"), Quality::Good);

        // The package of another build must not be taken.
        let other = build.rustc("other", &["debuginfo=1", "split-debuginfo=packed", version, "opt-level=1"]);
        std::fs::copy(separate::dwp_path(&other), separate::dwp_path(&path)).unwrap();
        let info = inspect(&path).unwrap();
        assert_eq!(
            (info.debug.level, info.debug.location),
            (DebugLevel::None, DebugLocation::None),
            "{version}"
        );
        assert!(info.problems.iter().any(|p| p.ends_with("is of another build")), "{:?}", info.problems);

        std::fs::remove_file(separate::dwp_path(&path)).unwrap();
        let info = inspect(&path).unwrap();
        assert_eq!(info.debug.level, DebugLevel::None);
        let setting = info.answers[0].setting.as_ref().unwrap();
        assert!(
            setting.contains("packed.dwp back") && setting.contains("split-debuginfo = \"off\""),
            "{setting}"
        );

        let path = build.rustc("loose", &["debuginfo=2", "split-debuginfo=unpacked", version]);
        let info = inspect(&path).unwrap();
        assert_eq!(
            info.debug.location,
            DebugLocation::Unpacked,
            "{version} {:?} {:?}",
            info.debug,
            info.problems
        );
        assert_eq!(info.debug.level, DebugLevel::Full, "{version}");
        assert!(info.debug.crates.iter().any(|c| c.name == "tokio"), "{:?}", info.debug.crates);
    }
}

#[test]
fn facts_agree_with_readelf() {
    let build = Build::new();
    let options =
        ["debuginfo=2", "link-arg=-Wl,--build-id=sha1", "link-arg=-Wl,-rpath,/opt/x", "link-arg=-Wl,-z,now"];
    let path = build.rustc("victim", &options);
    let info = inspect(&path).unwrap();
    assert_eq!((info.class, info.endianness), (64, Endianness::Little));
    assert_eq!(info.machine, std::env::consts::ARCH);
    assert_eq!(info.file_type, "position-independent executable");
    assert_eq!(info.file_size, std::fs::metadata(&path).unwrap().len());
    assert!(info.pie && info.nx && !info.stripped);
    assert_eq!(info.relro, Relro::Full);
    assert_eq!(info.runpath.as_deref().or(info.rpath.as_deref()), Some("/opt/x"));
    assert!(info.comments.iter().any(|c| c.starts_with("rustc version")), "{:?}", info.comments);
    assert!(info.debug.size > 0 && info.debug.compressed.is_none());
    assert_eq!(info.dependencies, None);

    let Some(text) = tool("readelf", &arguments(&["-W", "-h", "-l", "-n", "-d", "-S"], &[&path])) else {
        return;
    };
    let needed: Vec<_> = text
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split(['[', ']']).nth(1))
        .collect();
    assert_eq!(info.needed, needed);
    let build_id = text.lines().find_map(|line| Some(line.split_once("Build ID: ")?.1.trim()));
    assert_eq!(info.build_id.as_deref(), Some(build_id.unwrap()));
    let interpreter =
        text.lines().find_map(|line| line.trim().strip_prefix("[Requesting program interpreter: "));
    assert_eq!(info.interpreter.as_deref(), interpreter.unwrap().strip_suffix(']'));
    let entry =
        text.lines().find_map(|line| line.trim().strip_prefix("Entry point address:")).unwrap().trim();
    assert_eq!(format!("{:#x}", info.entry), entry);
    for section in &info.sections {
        // `[ 1] .interp PROGBITS …`; the segments' list names sections too, without numbers.
        let line = text.lines().filter(|l| l.trim_start().starts_with('['));
        let line = line.clone().find(|l| l.split_whitespace().any(|word| word == section.name)).unwrap();
        assert!(line.contains(&format!("{:016x}", section.address)), "{section:?}\n{line}");
        assert!(line.contains(&format!(" {:06x} ", section.size)), "{section:?}\n{line}");
        let flags: String = section.flags.chars().filter(|c| *c != ' ').collect();
        assert!(flags.is_empty() || line.contains(&format!(" {flags}")), "{section:?}\n{line}");
    }
    assert!(info.sections.len() > 20);
}

#[test]
fn other_kinds_of_linking() {
    let build = Build::new();
    let fixed = inspect(&build.rustc("fixed", &["relocation-model=static", "relro-level=off"])).unwrap();
    assert_eq!((fixed.file_type.as_str(), fixed.pie), ("executable", false));
    assert_eq!(fixed.relro, Relro::None);
    let partial = inspect(&build.rustc("partial", &["relro-level=partial"])).unwrap();
    assert_ne!(partial.relro, Relro::None);
    let fixed = inspect(&build.rustc("stack", &["link-arg=-Wl,-z,execstack"])).unwrap();
    assert!(!fixed.nx);
}

#[test]
fn compressed_sections_are_read() {
    let build = Build::new();
    let plain = build.rustc("plain", &["debuginfo=2"]);
    for how in ["zlib", "zstd"] {
        let path = build.path(how);
        let flag = format!("--compress-debug-sections={how}");
        let output = match Command::new("objcopy").arg(&flag).args([&plain, &path]).output() {
            Ok(output) => output,
            Err(e) => return skipped!("objcopy: {e}"),
        };
        if !output.status.success() {
            skipped!("{how}: {}", String::from_utf8_lossy(&output.stderr));
            continue;
        }
        let info = inspect(&path).unwrap();
        assert_eq!(info.debug.compressed.as_deref(), Some(how));
        assert_eq!(info.debug.level, DebugLevel::Full, "{how}: {:?} {:?}", info.debug, info.problems);
        assert!(info.debug.crates.iter().any(|c| c.name == "tokio"), "{how}: {:?}", info.debug.crates);
    }
}

#[test]
fn separate_debug_files_are_found_and_checked() {
    let build = Build::new();
    let whole = build.rustc("whole", &["debuginfo=2", "link-arg=-Wl,--build-id=sha1"]);
    let (debug, program) = (build.path("program.dbg"), build.path("program"));
    if tool("objcopy", &arguments(&["--only-keep-debug"], &[&whole, &debug])).is_none() {
        return;
    }
    let link = format!("--add-gnu-debuglink={}", debug.display());
    tool("objcopy", &arguments(&["--strip-all", &link], &[&whole, &program]));

    let found = |by| {
        let info = inspect(&program).unwrap();
        let search = info.debug.separate.as_ref().unwrap();
        assert_eq!(search.found.as_ref(), Some(&debug), "{search:?}");
        assert_eq!(search.matched_by, Some(by));
        assert_eq!((info.debug.level, info.debug.location), (DebugLevel::Full, DebugLocation::SeparateFile));
        assert!(info.stripped && info.debug.size > 0);
        assert_eq!(quality(&info, "/stacktrace/tokio"), Quality::Good);
    };
    found(separate::MatchedBy::BuildId);

    // .debug/ below the program's directory.
    std::fs::create_dir(build.path(".debug")).unwrap();
    let hidden = build.path(".debug/program.dbg");
    std::fs::rename(&debug, &hidden).unwrap();
    assert_eq!(inspect(&program).unwrap().debug.separate.unwrap().found, Some(hidden.clone()));
    std::fs::rename(&hidden, &debug).unwrap();

    // A build of another day, under the same name.
    let other = build.rustc("other", &["debuginfo=2", "opt-level=1", "link-arg=-Wl,--build-id=sha1"]);
    std::fs::copy(&other, &debug).unwrap();
    let info = inspect(&program).unwrap();
    let search = info.debug.separate.as_ref().unwrap();
    assert_eq!((info.debug.level, &search.found), (DebugLevel::None, &None));
    assert!(search.rejected[0].reason.starts_with("of another build: build-id"), "{search:?}");
    assert!(search.hint.as_ref().unwrap().contains(info.build_id.as_ref().unwrap()));
    assert!(info.answers[0].setting.as_ref().unwrap().contains("program.dbg"));

    // Without build-ids the CRC decides.
    let whole = build.rustc("whole", &["debuginfo=2", "link-arg=-Wl,--build-id=none"]);
    tool("objcopy", &arguments(&["--only-keep-debug"], &[&whole, &debug]));
    tool("objcopy", &arguments(&["--strip-all", &link], &[&whole, &program]));
    found(separate::MatchedBy::Crc);
    let mut bytes = std::fs::read(&debug).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&debug, bytes).unwrap();
    let search = inspect(&program).unwrap().debug.separate.unwrap();
    assert!(search.rejected[0].reason.starts_with("of another build: CRC"), "{search:?}");
}

#[test]
fn the_list_of_cargo_auditable_is_read() {
    use std::io::Write as _;
    let build = Build::new();
    let (plain, list, path) = (build.rustc("plain", &[]), build.path("list"), build.path("audited"));
    let json = r#"{"packages":[
        {"name":"cc","version":"1.2.0","source":"crates.io","kind":"build"},
        {"name":"victim","version":"0.1.0","source":"local","dependencies":[0],"root":true}]}"#;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(json.as_bytes()).unwrap();
    std::fs::write(&list, encoder.finish().unwrap()).unwrap();
    let section = format!(".dep-v0={}", list.display());
    if tool("objcopy", &arguments(&["--add-section", &section], &[&plain, &path])).is_none() {
        return;
    }
    let dependencies = inspect(&path).unwrap().dependencies.unwrap();
    let seen: Vec<_> = dependencies.iter().map(|d| (d.name.as_str(), d.build_only, d.root)).collect();
    assert_eq!(seen, [("cc", true, false), ("victim", false, true)]);
}

#[test]
fn the_running_program_is_read_even_when_replaced() {
    const CHILD: &str = "DELOUSE_ELF_REPLACED";
    let info = inspect_own().unwrap();
    if std::env::var_os(CHILD).is_some() {
        std::fs::remove_file(&info.path).unwrap();
        let again = inspect_own().unwrap();
        assert_eq!((&again.path, &again.build_id), (&info.path, &info.build_id));
        assert!(again.problems[0].contains("replaced or removed"));
        return;
    }
    let own = std::env::current_exe().unwrap();
    assert_eq!((&info.path, info.problems.len()), (&own, 0));
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("copy");
    crate::isolation::copy_program(&copy);
    let name = "debuginfo::elf::tests::the_running_program_is_read_even_when_replaced";
    let output = Command::new(&copy).args(["--exact", name]).env(CHILD, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(!copy.exists(), "the child ran nothing");
}

#[test]
fn what_is_not_elf_is_a_typed_error() {
    let build = Build::new();
    let write = |bytes: &[u8]| {
        let path = build.path("file");
        std::fs::write(&path, bytes).unwrap();
        inspect(&path)
    };
    assert!(matches!(write(b""), Err(ElfError::NotElf)));
    assert!(matches!(write(b"#!/bin/sh\nexit 0\n"), Err(ElfError::NotElf)));
    assert!(matches!(write(b"\x7fELF"), Err(ElfError::NotElf)));
    assert!(matches!(write(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"), Err(ElfError::Header)));
    assert!(matches!(inspect(&build.path("nothing")), Err(ElfError::Io(_))));
    assert!(matches!(inspect(Path::new("/")), Err(ElfError::Io(_))));
    assert!(matches!(inspect(Path::new("/dev/zero")), Err(ElfError::Io(_))));
}

/// A header and one PT_GNU_STACK segment, of either class and byte order.
fn tiny(is_64: bool, big: bool, machine: u16) -> Vec<u8> {
    let word = |value: u64, size: usize| {
        let bytes =
            if big { value.to_be_bytes()[8 - size..].to_vec() } else { value.to_le_bytes()[..size].to_vec() };
        bytes.into_iter()
    };
    let address = if is_64 { 8 } else { 4 };
    let (header, segment) = if is_64 { (64, 56) } else { (52, 32) };
    let mut file = vec![0x7f, b'E', b'L', b'F', 1 + u8::from(is_64), 1 + u8::from(big), 1];
    file.resize(16, 0);
    file.extend(word(2, 2).chain(word(machine.into(), 2)).chain(word(1, 4)));
    file.extend(word(0x10000, address).chain(word(header, address)).chain(word(0, address)));
    file.extend(word(0, 4).chain(word(header, 2)).chain(word(segment, 2)).chain(word(1, 2)));
    file.extend(word(0, 2).chain(word(0, 2)).chain(word(0, 2)));
    file.extend(word(0x6474_e551, 4).chain(word(if is_64 { 6 } else { 0 }, 4)));
    file.extend((0..if is_64 { 6 } else { 4 }).flat_map(|_| word(0, address)));
    file.extend(word(if is_64 { 0 } else { 6 }, 4).chain(word(0, 4)));
    file.truncate((header + segment) as usize);
    file
}

#[test]
fn other_classes_and_byte_orders() {
    let build = Build::new();
    let path = build.path("tiny");
    let kinds = [(false, false, 3, "i686"), (false, true, 8, "mips"), (true, true, 22, "s390x")];
    for (is_64, big, number, name) in kinds {
        std::fs::write(&path, tiny(is_64, big, number)).unwrap();
        let info = inspect(&path).unwrap();
        assert_eq!((info.class, info.machine.as_str()), (if is_64 { 64 } else { 32 }, name));
        assert_eq!(info.endianness, if big { Endianness::Big } else { Endianness::Little });
        assert_eq!((info.entry, info.file_type.as_str(), info.nx), (0x10000, "executable", true));
        assert!(info.stripped && info.sections.is_empty());
        assert_eq!(info.debug.level, DebugLevel::None);
    }
}
