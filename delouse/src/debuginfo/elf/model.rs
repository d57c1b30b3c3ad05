//! What `/elf/info` answers.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::debuginfo::separate::{SeparateDebug, lossy};

/// The facts about one ELF file.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ElfInfo {
    /// The file that was read.
    #[serde(serialize_with = "lossy::path")]
    #[schemars(with = "String")]
    pub(crate) path: PathBuf,
    /// Its size in bytes.
    pub(crate) file_size: u64,
    /// `executable`, `position-independent executable`, `shared library`, `relocatable object`, `core file`.
    pub(crate) file_type: String,
    /// The processor: `x86_64`, `aarch64`, …
    pub(crate) machine: String,
    /// 32 or 64.
    pub(crate) class: u8,
    /// Byte order.
    pub(crate) endianness: Endianness,
    /// Address of the first instruction, before relocation; 0 where there is none.
    pub(crate) entry: u64,
    /// The linker's fingerprint of this build in hexadecimal digits. Debug files are matched by it.
    pub(crate) build_id: Option<String>,
    /// The dynamic loader; none in a static program.
    pub(crate) interpreter: Option<String>,
    /// Shared libraries that the loader must find (`DT_NEEDED`), in order.
    pub(crate) needed: Vec<String>,
    /// Where the loader looks for them first (`DT_RPATH`).
    pub(crate) rpath: Option<String>,
    /// Where the loader looks for them after `LD_LIBRARY_PATH` (`DT_RUNPATH`).
    pub(crate) runpath: Option<String>,
    /// Whether it is an executable that is loaded at a random address.
    pub(crate) pie: bool,
    /// How much of the relocated data is write-protected after start.
    pub(crate) relro: Relro,
    /// Whether the stack is not executable.
    pub(crate) nx: bool,
    /// Whether the symbol table (`.symtab`) was removed.
    pub(crate) stripped: bool,
    /// The strings of `.comment`: which compilers and linkers made it.
    pub(crate) comments: Vec<String>,
    /// Which debug information there is, and where.
    pub(crate) debug: DebugInformation,
    /// The tables that stacks of threads are followed by; nothing for a file of another format than the program's own.
    pub(crate) unwind_tables: Option<UnwindTables>,
    /// Which of delouse's answers this allows, and what to add for better ones.
    pub(crate) answers: Vec<Answer>,
    /// The crates it was built from, where it was built with `cargo auditable`.
    pub(crate) dependencies: Option<Vec<Dependency>>,
    /// Every section.
    pub(crate) sections: Vec<SectionInfo>,
    /// What is damaged, missing or was left out.
    pub(crate) problems: Vec<String>,
}

/// Byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Endianness {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

/// Which relocated data is read-only once the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Relro {
    /// Nothing.
    None,
    /// All but the table of lazily bound functions.
    Partial,
    /// Everything: functions are bound at start.
    Full,
}

/// How much the compiler told about the program's own code (not about std's, which always comes with some).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DebugLevel {
    /// Nothing: `debug = 0`, or stripped.
    None,
    /// File and line of each instruction: `debug = "line-tables-only"`.
    LineTables,
    /// The same and full function names, no types: `debug = 1`, `"limited"`.
    Limited,
    /// Types and variables: `debug = 2`, `"full"`, `true`.
    Full,
}

/// Which file holds the debug information that `level` describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DebugLocation {
    /// There is none.
    None,
    /// The file itself.
    Embedded,
    /// A separate debug file, see `separate`.
    SeparateFile,
    /// A package of split units, `<file>.dwp`, see `split`.
    Packed,
    /// One `.dwo` file for each unit, see `split`.
    Unpacked,
}

/// The debug information of a file.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct DebugInformation {
    /// The most that any crate but std has.
    pub(crate) level: DebugLevel,
    /// Whether some crates have less than `level`: see `crates`.
    pub(crate) mixed: bool,
    /// Where it is.
    pub(crate) location: DebugLocation,
    /// What std has: its prebuilt libraries carry `limited` whatever the profile says.
    pub(crate) standard_library: DebugLevel,
    /// DWARF versions of the units, ascending.
    pub(crate) dwarf_versions: Vec<u16>,
    /// How the sections are compressed: `zlib`, `zstd`, or nothing.
    pub(crate) compressed: Option<String>,
    /// Bytes of the debug sections in the file that holds them.
    pub(crate) size: u64,
    /// Compilation units of the program, without std.
    pub(crate) units: u64,
    /// The same by crate, least informed first; crates without any debug information do not appear.
    pub(crate) crates: Vec<CrateDebug>,
    /// Whether only a part of the units was looked at, to keep the answer quick.
    pub(crate) sampled: bool,
    /// Split units and where they were found; nothing where the build is not split.
    pub(crate) split: Option<SplitDebug>,
    /// The search for a separate debug file; nothing where the file has its own debug information.
    pub(crate) separate: Option<SeparateDebug>,
}

/// The unwind tables, which say where each function has stored its return address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct UnwindTables {
    /// The sections with tables: `.eh_frame`, `.debug_frame`.
    pub(crate) sections: Vec<String>,
    /// Functions of the symbol table that were looked up in them: at most 20,000.
    pub(crate) functions: u64,
    /// Those without a table.
    pub(crate) missing: u64,
    /// Some of these by name.
    pub(crate) examples: Vec<String>,
}

/// The debug information of one crate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct CrateDebug {
    /// The crate, or the path of its root module where the compiler did not name it.
    pub(crate) name: String,
    /// The most that any of its units has.
    pub(crate) level: DebugLevel,
    /// Its compilation units.
    pub(crate) units: u64,
}

/// Split debug information (`split-debuginfo`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct SplitDebug {
    /// Units whose types are in another file.
    pub(crate) units: u64,
    /// Those found there, of this very build.
    pub(crate) found: u64,
    /// The package, where there is one: `<file>.dwp`.
    pub(crate) package: Option<String>,
    /// Files looked for in vain, or of another build; at most 16.
    pub(crate) missing: Vec<String>,
}

/// One of delouse's answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Answer {
    /// The endpoint.
    pub(crate) endpoint: String,
    /// How good its answer can be.
    pub(crate) quality: Quality,
    /// What it will show, in words.
    pub(crate) shows: String,
    /// What to add for a better one, word for word.
    pub(crate) setting: Option<String>,
}

/// How good an answer can be with this debug information.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Quality {
    /// All that delouse can tell.
    Good,
    /// A part of it.
    Degraded,
    /// Nothing of use.
    Missing,
}

/// One crate of the dependency list that `cargo auditable` embeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Dependency {
    /// The package.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// Where it came from: `crates.io`, `git`, `local`, `registry`.
    pub(crate) source: String,
    /// Whether it only ran at build time.
    pub(crate) build_only: bool,
    /// Whether it is the program itself.
    pub(crate) root: bool,
}

/// One section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct SectionInfo {
    /// Its name.
    pub(crate) name: String,
    /// Its address in memory before relocation; 0 where it is not loaded.
    pub(crate) address: u64,
    /// Its size in bytes, as stored.
    pub(crate) size: u64,
    /// As `readelf` writes them: A loaded, W writable, X code, C compressed, T thread-local, M S merged strings.
    pub(crate) flags: String,
}
