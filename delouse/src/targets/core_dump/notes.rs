//! The notes of a core file: registers, names, files (core(5), Linux `include/uapi/linux/elfcore.h`).

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use object::elf::{NT_AUXV, NT_FILE, NT_FPREGSET, NT_PRPSINFO, NT_PRSTATUS, NoteHeader64, NoteType};
use object::pod::bytes_of;
use object::{LittleEndian as LE, U32};

use super::image::{CoreImage, ProcessIds};
use crate::host::heap::page_size;
use crate::snapshot::{Mapping, Thread};
use crate::targets::core_file::notes::{DELOUSE, NT_DELOUSE_THREADS};

/// Writes the notes of a core file.
pub(super) struct NoteWriter<'s> {
    image: &'s dyn CoreImage,
    ids: ProcessIds,
    auxv: Vec<u8>,
    registers: Vec<(i32, &'s [u64])>,
}

impl<'s> NoteWriter<'s> {
    pub(super) fn new(image: &'s dyn CoreImage) -> Self {
        let (ids, auxv, registers) = (image.ids(), image.auxv(), image.registers());
        Self { image, ids, auxv, registers }
    }

    /// The number of threads with registers.
    pub(super) fn threads(&self) -> usize {
        self.registers.len()
    }

    /// Writes all notes. Repeated calls write the same number of bytes.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        // Debuggers select the first thread: write the main thread first.
        let first = self.registers.iter().position(|&(tid, _)| tid == self.ids.pid).unwrap_or(0);
        let rest = (0..self.registers.len()).filter(|index| *index != first);
        for index in std::iter::once(first).chain(rest) {
            let Some((tid, registers)) = self.registers.get(index) else { break };
            let further = self.image.thread_notes(index);
            let has_floats = further.iter().any(|note| note.kind == NT_FPREGSET);
            self.write_status(out, *tid, registers, has_floats)?;
            if index == first {
                self.write_process(out)?;
            }
            for note in further {
                write_note(out, note.name, note.kind, &note.contents)?;
            }
        }
        if self.registers.is_empty() {
            self.write_process(out)?;
        }
        Ok(())
    }

    fn write_process(&self, out: &mut dyn Write) -> io::Result<()> {
        write_note(out, b"CORE", NT_PRPSINFO, &self.process())?;
        if !self.auxv.is_empty() {
            write_note(out, b"CORE", NT_AUXV, &self.auxv)?;
        }
        write_note(out, b"CORE", NT_FILE, &files(self.image.listed_mappings()))?;
        write_note(out, DELOUSE, NT_DELOUSE_THREADS, &names(self.image.threads()))
    }

    /// `struct elf_prpsinfo`. Contains no command line, which may contain secrets.
    fn process(&self) -> Vec<u8> {
        let main = self.image.threads().iter().find(|thread| thread.tid == self.ids.pid);
        let name = main.map(|thread| thread.name.as_str()).unwrap_or_default();
        let ProcessIds { pid, parent, user, group } = self.ids;
        let mut info = vec![0, b'R', 0, 0, 0, 0, 0, 0];
        info.extend_from_slice(&0_u64.to_ne_bytes());
        for id in [user, group, pid as u32, parent as u32, 0, 0] {
            info.extend_from_slice(&id.to_ne_bytes());
        }
        info.extend_from_slice(&padded::<16>(name));
        info.extend_from_slice(&padded::<80>(name));
        info
    }

    /// `struct elf_prstatus`.
    fn write_status(
        &self,
        out: &mut dyn Write,
        tid: i32,
        registers: &[u64],
        has_floats: bool,
    ) -> io::Result<()> {
        // siginfo (3 words), current signal, pending and held signals: none.
        let mut status = vec![0; 32];
        for id in [tid, self.ids.parent, 0, 0] {
            status.extend_from_slice(&id.to_ne_bytes());
        }
        let thread = self.image.threads().binary_search_by_key(&tid, |thread| thread.tid).ok();
        let cpu = thread.and_then(|place| self.image.threads().get(place)?.cpu).unwrap_or_default();
        status.extend_from_slice(&cpu.as_secs().to_ne_bytes());
        status.extend_from_slice(&u64::from(cpu.subsec_micros()).to_ne_bytes());
        // System time (counted above), times of children.
        status.resize(status.len() + 48, 0);
        for register in registers {
            status.extend_from_slice(&register.to_ne_bytes());
        }
        // Whether floating-point registers are valid; padding.
        status.extend_from_slice(&u64::from(has_floats).to_le_bytes());
        write_note(out, b"CORE", NT_PRSTATUS, &status)
    }
}

/// Shared anonymous memory, `memfd_create`, System V segments.
const NO_FILES: [&[u8]; 3] = [b"/dev/zero", b"/memfd:", b"/SYSV"];

/// `NT_FILE`: count, page size, then start, end and offset (in pages) of each file mapping, then the names.
fn files(mappings: &[Mapping]) -> Vec<u8> {
    let mapped = || {
        mappings.iter().filter_map(|mapping| {
            let path = mapping.path.as_ref()?.as_os_str().as_bytes();
            // gdb would report that it cannot open these, because they are not files.
            let file = path.starts_with(b"/") && !NO_FILES.iter().any(|prefix| path.starts_with(prefix));
            file.then_some((mapping, path))
        })
    };
    let page = page_size() as u64;
    let mut note = Vec::new();
    for number in [mapped().count() as u64, page] {
        note.extend_from_slice(&number.to_ne_bytes());
    }
    for (mapping, _) in mapped() {
        for number in [mapping.range.start.get(), mapping.range.end.get(), mapping.offset.get() / page] {
            note.extend_from_slice(&number.to_ne_bytes());
        }
    }
    for (_, path) in mapped() {
        note.extend_from_slice(path);
        note.push(0);
    }
    note
}

fn names(threads: &[Thread]) -> Vec<u8> {
    let mut note = Vec::with_capacity(threads.len() * 24);
    for thread in threads {
        note.extend_from_slice(&thread.tid.to_le_bytes());
        let state = thread.state.and_then(|state| u8::try_from(state).ok()).unwrap_or(0);
        note.extend_from_slice(&[state, 0, 0, 0]);
        note.extend_from_slice(&padded::<16>(&thread.name));
    }
    note
}

/// A name in a field that ends with at least one zero.
fn padded<const N: usize>(name: &str) -> [u8; N] {
    let mut field = [0; N];
    for (to, from) in field.iter_mut().take(N - 1).zip(name.bytes()) {
        *to = from;
    }
    field
}

/// Name and contents are each padded to 4 bytes (elf(5)).
fn write_note(out: &mut dyn Write, name: &[u8], kind: NoteType, contents: &[u8]) -> io::Result<()> {
    let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let name_len = u32::try_from(name.len() + 1).map_err(too_large)?;
    let contents_len = u32::try_from(contents.len()).map_err(too_large)?;
    out.write_all(bytes_of(&NoteHeader64 {
        n_namesz: U32::new(LE, name_len),
        n_descsz: U32::new(LE, contents_len),
        n_type: U32::new(LE, kind),
    }))?;
    const ZEROES: [u8; 4] = [0; 4];
    let padding = |len: u32| ZEROES.get(..(len.next_multiple_of(4) - len) as usize).unwrap_or_default();
    out.write_all(name)?;
    out.write_all(&[0])?;
    out.write_all(padding(name_len))?;
    out.write_all(contents)?;
    out.write_all(padding(contents_len))
}
