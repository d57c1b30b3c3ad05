//! The line table of a unit (DWARF 5, 6.2): of each sequence only where it is, as an answer needs the lines of a few
//! addresses. A sequence is one function, in what rustc makes.

use gimli::{DwLne, DwLns, constants as dw};

use super::bytes;

/// More sequences than the table of any unit has.
const MAX_SEQUENCES: usize = 1 << 22;

/// The sequences of a line table.
#[derive(Debug)]
pub(in crate::debuginfo) struct Lines<'a> {
    program: Program<'a>,
    /// Ordered by address.
    sequences: Vec<Sequence>,
}

/// What the header of the table says.
#[derive(Debug, Clone, Copy)]
pub(in crate::debuginfo) struct Program<'a> {
    pub(in crate::debuginfo) instructions: &'a [u8],
    pub(in crate::debuginfo) address_size: usize,
    pub(in crate::debuginfo) minimum_length: u64,
    pub(in crate::debuginfo) line_base: i64,
    pub(in crate::debuginfo) line_range: u64,
    pub(in crate::debuginfo) opcode_base: u8,
    /// How many arguments each standard opcode has, those that are not known here too.
    pub(in crate::debuginfo) arguments: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
struct Sequence {
    start: u64,
    end: u64,
    /// Where its instructions begin.
    at: usize,
}

/// A row of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::debuginfo) struct Row {
    pub(in crate::debuginfo) address: u64,
    /// Its number in the list of files.
    pub(in crate::debuginfo) file: u64,
    /// 0 where the code belongs to no line.
    pub(in crate::debuginfo) line: u64,
}

/// What an instruction did.
enum Step {
    Nothing,
    Row,
    End,
}

struct Machine<'a> {
    program: Program<'a>,
    rest: &'a [u8],
    row: Row,
}

impl<'a> Lines<'a> {
    /// Reads the whole table once. What cannot be read ends it early.
    pub(in crate::debuginfo) fn read(program: Program<'a>) -> Self {
        let mut sequences = Vec::new();
        let mut machine = Machine::new(program, 0);
        let (mut at, mut start) = (0, None);
        while let Some(step) = machine.step() {
            match step {
                Step::Nothing => {}
                Step::Row => {
                    if start.is_none() {
                        start = Some(machine.row.address);
                    }
                }
                Step::End => {
                    let end = machine.row.address;
                    if let Some(start) = start.take()
                        && start < end
                        // The linker dropped the function.
                        && start != 0
                        && sequences.len() < MAX_SEQUENCES
                    {
                        sequences.push(Sequence { start, end, at });
                    }
                    at = program.instructions.len() - machine.rest.len();
                    machine.row = FIRST;
                }
            }
        }
        sequences.sort_by_key(|sequence| sequence.start);
        Self { program, sequences }
    }

    /// The size of the table, in bytes.
    #[cfg(test)]
    pub(in crate::debuginfo) fn size(&self) -> usize {
        self.program.instructions.len()
    }

    /// The row that the code at `address` belongs to.
    pub(in crate::debuginfo) fn find(&self, address: u64) -> Option<Row> {
        let after = self.sequences.partition_point(|sequence| sequence.start <= address);
        let sequence = self.sequences.get(after.checked_sub(1)?).filter(|sequence| address < sequence.end)?;
        let mut machine = Machine::new(self.program, sequence.at);
        let mut before = None;
        loop {
            match machine.step()? {
                Step::Nothing => {}
                Step::Row if machine.row.address > address => return before,
                Step::Row => before = Some(machine.row),
                Step::End => return before,
            }
        }
    }
}

/// The registers at the start of a sequence.
const FIRST: Row = Row { address: 0, file: 1, line: 1 };

impl<'a> Machine<'a> {
    fn new(program: Program<'a>, at: usize) -> Self {
        Self { program, rest: program.instructions.get(at..).unwrap_or_default(), row: FIRST }
    }

    /// Executes one instruction; `None` at the end, and where it cannot be read.
    #[inline(always)]
    fn step(&mut self) -> Option<Step> {
        let [opcode, rest @ ..] = self.rest else { return None };
        self.rest = rest;
        if *opcode >= self.program.opcode_base {
            let adjusted = (*opcode - self.program.opcode_base) as u64;
            let range = self.program.line_range;
            if range == 0 {
                return None;
            }
            self.advance(adjusted / range);
            self.advance_line(self.program.line_base + (adjusted % range) as i64);
            return Some(Step::Row);
        }
        self.standard(*opcode)
    }

    fn standard(&mut self, opcode: u8) -> Option<Step> {
        match DwLns(opcode) {
            DwLns(0) => return self.extended(),
            dw::DW_LNS_copy => return Some(Step::Row),
            dw::DW_LNS_advance_pc => {
                let by = bytes::uleb(&mut self.rest)?;
                self.advance(by);
            }
            dw::DW_LNS_advance_line => {
                let by = bytes::sleb(&mut self.rest)?;
                self.advance_line(by);
            }
            dw::DW_LNS_set_file => self.row.file = bytes::uleb(&mut self.rest)?,
            dw::DW_LNS_const_add_pc => {
                self.advance(u64::from(255 - self.program.opcode_base).checked_div(self.program.line_range)?);
            }
            dw::DW_LNS_fixed_advance_pc => {
                let by = bytes::u16(&mut self.rest)?;
                self.row.address = self.row.address.wrapping_add(u64::from(by));
            }
            dw::DW_LNS_negate_stmt
            | dw::DW_LNS_set_basic_block
            | dw::DW_LNS_set_prologue_end
            | dw::DW_LNS_set_epilogue_begin => {}
            _ => {
                let arguments = self.program.arguments.get(usize::from(opcode) - 1).copied();
                for _ in 0..arguments.unwrap_or(0) {
                    bytes::uleb(&mut self.rest)?;
                }
            }
        }
        Some(Step::Nothing)
    }

    fn extended(&mut self) -> Option<Step> {
        let length = usize::try_from(bytes::uleb(&mut self.rest)?).ok()?;
        let (mut own, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        match DwLne(bytes::u8(&mut own)?) {
            dw::DW_LNE_end_sequence => return Some(Step::End),
            dw::DW_LNE_set_address => {
                self.row.address = bytes::unsigned(&mut own, self.program.address_size)?;
            }
            _ => {}
        }
        Some(Step::Nothing)
    }

    #[inline(always)]
    fn advance(&mut self, operations: u64) {
        // A machine with several operations in one instruction is none of ours.
        self.row.address =
            self.row.address.wrapping_add(self.program.minimum_length.wrapping_mul(operations));
    }

    #[inline(always)]
    fn advance_line(&mut self, by: i64) {
        self.row.line = self.row.line.wrapping_add(by as u64);
    }
}
