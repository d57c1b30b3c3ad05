//! Reads core files without a debugger.

use std::collections::BTreeMap;

use object::Endianness;
use object::elf::{self, FileHeader64, NT_PRSTATUS, NoteType, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

/// The threads of a core file and what holds them.
#[derive(Debug)]
pub struct CoreDump {
    /// The stack pointer of each thread with registers, by thread id.
    pub stack_pointers: BTreeMap<u32, u64>,
    /// The name of each thread, from delouse's own note.
    pub names: BTreeMap<u32, String>,
    /// The size that its headers demand.
    pub bytes: u64,
    /// Memory that is in the file: address and length.
    loaded: Vec<(u64, u64)>,
}

/// Records of 24 bytes: thread id, state, name.
const NT_DELOUSE_THREADS: NoteType = NoteType(0x444c_0001);
/// Offset of `pr_pid` in `struct elf_prstatus`, and of rsp (x86_64) (Linux `include/linux/elfcore.h`).
const PR_PID: usize = 32;
const PR_REG_SP: usize = 112 + 19 * 8;

impl CoreDump {
    /// Reads `file`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(file: &[u8]) -> Result<Self, String> {
        let mut core =
            Self { stack_pointers: BTreeMap::new(), names: BTreeMap::new(), bytes: 0, loaded: Vec::new() };
        let header = FileHeader64::<Endianness>::parse(file).map_err(|e| e.to_string())?;
        let endian = header.endian().map_err(|e| e.to_string())?;
        if header.e_type(endian) != elf::ET_CORE {
            return Err("no core file".to_owned());
        }
        for segment in header.program_headers(endian, file).map_err(|e| e.to_string())? {
            let (at, len) = segment.file_range(endian);
            core.bytes = core.bytes.max(at + len);
            if segment.p_type(endian) == PT_LOAD {
                core.loaded.push((segment.p_vaddr(endian), len));
            }
            let notes = segment.notes(endian, file).map_err(|e| e.to_string())?;
            for note in notes.into_iter().flat_map(|mut notes| {
                std::iter::from_fn(move || notes.next().transpose()).collect::<Vec<_>>()
            }) {
                let note = note.map_err(|e| e.to_string())?;
                match (note.name(), note.n_type(endian)) {
                    (b"CORE", NT_PRSTATUS) => {
                        let tid = number::<4>(note.desc(), PR_PID)? as u32;
                        core.stack_pointers.insert(tid, number::<8>(note.desc(), PR_REG_SP)?);
                    }
                    (b"delouse", NT_DELOUSE_THREADS) => {
                        for record in note.desc().chunks_exact(24) {
                            let name = record[8..].split(|&b| b == 0).next().unwrap_or_default();
                            let name = String::from_utf8_lossy(name).into_owned();
                            core.names.insert(number::<4>(record, 0)? as u32, name);
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(core)
    }

    /// Whether memory at `address` is in the file.
    pub fn holds(&self, address: u64) -> bool {
        self.loaded.iter().any(|(start, len)| (*start..start + len).contains(&address))
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<u64, String> {
    let bytes = bytes.get(at..at + N).ok_or("a note is too short")?;
    Ok(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}
