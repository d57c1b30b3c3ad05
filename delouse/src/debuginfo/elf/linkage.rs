//! How a file was linked: from its program headers and its dynamic table.

use object::elf;

use super::image::Image;
use super::model::Relro;
use crate::debuginfo::address::FileAddress;

/// What the loader is told.
pub(crate) struct Linkage {
    pub(crate) file_type: String,
    pub(crate) needed: Vec<String>,
    pub(crate) rpath: Option<String>,
    pub(crate) runpath: Option<String>,
    pub(crate) pie: bool,
    pub(crate) relro: Relro,
    pub(crate) nx: bool,
}

/// More libraries than any program needs.
const MAX_NEEDED: usize = 1024;

pub(crate) fn read(image: &Image, problems: &mut Vec<String>) -> Linkage {
    let value =
        |tag: elf::DynamicTag| image.dynamic.iter().find(|(t, _)| *t == tag.0).map(|(_, value)| *value);
    let flags = value(elf::DT_FLAGS).unwrap_or(0);
    let flags_1 = value(elf::DT_FLAGS_1).unwrap_or(0);
    // A PIE is a shared library to the header. The linker marks it (DF_1_PIE); old ones only gave it an
    // interpreter.
    let pie = image.kind == elf::ET_DYN && (flags_1 & elf::DF_1_PIE.0 != 0 || image.interpreter.is_some());
    let strings = value(elf::DT_STRTAB).and_then(|address| image.file_offset(FileAddress::new(address)));
    let text = |offset: u64| strings.and_then(|table| image.text_at(table.checked_add(offset)?));
    let mut needed = Vec::new();
    let libraries = image.dynamic.iter().filter(|(tag, _)| *tag == elf::DT_NEEDED.0);
    for (_, offset) in libraries.take(MAX_NEEDED) {
        match text(*offset) {
            Some(name) => needed.push(name),
            None => problems.push("a needed library has no readable name".to_owned()),
        }
    }
    problems.truncate(64);
    let now = value(elf::DT_BIND_NOW).is_some()
        || flags & elf::DF_BIND_NOW.0 != 0
        || flags_1 & elf::DF_1_NOW.0 != 0;
    let segment = |kind| image.segments.iter().find(|s| s.kind == kind);
    Linkage {
        file_type: file_type(image, pie),
        needed,
        rpath: value(elf::DT_RPATH).and_then(text),
        runpath: value(elf::DT_RUNPATH).and_then(text),
        pie,
        relro: match (segment(elf::PT_GNU_RELRO), now) {
            (None, _) => Relro::None,
            (Some(_), false) => Relro::Partial,
            (Some(_), true) => Relro::Full,
        },
        // Without the header the kernel makes the stack of an old program executable.
        nx: segment(elf::PT_GNU_STACK).is_some_and(|s| !s.executable),
    }
}

fn file_type(image: &Image, pie: bool) -> String {
    match image.kind {
        elf::ET_EXEC => "executable",
        elf::ET_DYN if pie => "position-independent executable",
        elf::ET_DYN => "shared library",
        elf::ET_REL => "relocatable object",
        elf::ET_CORE => "core file",
        other => return format!("unknown ({})", other.0),
    }
    .to_owned()
}
