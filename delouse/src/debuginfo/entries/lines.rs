//! The line table of a unit (DWARF 5, 6.2), without its rows: an answer needs the lines of few addresses, so that only the
//! address ranges of sequences are kept, and a sequence is decoded again for each address. rustc emits one sequence for
//! each function.

use gimli::{DwLne, DwLns, constants as dw};

use super::bytes;

/// More sequences than the table of any unit has.
const MAX_SEQUENCES: usize = 1 << 22;

/// A line table as its instructions and an index of its sequences.
#[derive(Debug)]
pub(in crate::debuginfo) struct Lines<'a> {
    program: Program<'a>,
    /// Ordered by address.
    sequences: Vec<Sequence>,
}

/// The instructions of a table, and what its header says about them.
#[derive(Debug, Clone, Copy)]
pub(in crate::debuginfo) struct Program<'a> {
    pub(in crate::debuginfo) instructions: &'a [u8],
    pub(in crate::debuginfo) address_size: usize,
    pub(in crate::debuginfo) minimum_length: u64,
    pub(in crate::debuginfo) line_base: i64,
    pub(in crate::debuginfo) line_range: u64,
    pub(in crate::debuginfo) opcode_base: u8,
    /// The number of arguments of each standard opcode, from opcode 1 on, so that unknown ones can be skipped.
    pub(in crate::debuginfo) arguments: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
struct Sequence {
    start: u64,
    end: u64,
    /// The offset of its first instruction.
    offset: usize,
}

/// A row of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::debuginfo) struct Row {
    pub(in crate::debuginfo) address: u64,
    /// The number of the source file in the file list of the table.
    pub(in crate::debuginfo) file: u64,
    /// 0 if the code belongs to no line.
    pub(in crate::debuginfo) line: u64,
}

/// The effect of an instruction.
enum Step {
    /// It changed registers only.
    Nothing,
    /// It appended the current row to the table.
    Row,
    /// It ended the sequence.
    End,
}

/// The state machine of DWARF 5, 6.2.2.
struct Machine<'a> {
    program: Program<'a>,
    /// The instructions that were not executed yet.
    rest: &'a [u8],
    /// The registers that delouse needs.
    row: Row,
}

impl<'a> Lines<'a> {
    /// Executes the whole table once to find its sequences. Stops at an instruction that cannot be read.
    pub(in crate::debuginfo) fn read(program: Program<'a>) -> Self {
        let mut sequences = Vec::new();
        let mut machine = Machine::new(program, 0);
        let (mut offset, mut start) = (0, None);
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
                        // The linker sets the address of a function that it dropped to 0.
                        && start != 0
                        && sequences.len() < MAX_SEQUENCES
                    {
                        sequences.push(Sequence { start, end, offset });
                    }
                    offset = program.instructions.len() - machine.rest.len();
                    machine.row = INITIAL;
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
        let mut machine = Machine::new(self.program, sequence.offset);
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

/// The registers at the start of each sequence.
const INITIAL: Row = Row { address: 0, file: 1, line: 1 };

impl<'a> Machine<'a> {
    fn new(program: Program<'a>, offset: usize) -> Self {
        Self { program, rest: program.instructions.get(offset..).unwrap_or_default(), row: INITIAL }
    }

    /// Executes one instruction. `None` at the end of the table, or if the instruction cannot be read.
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

    /// Executes an instruction with a standard opcode, or with 0, which precedes an extended one.
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
            // An opcode of a later version of DWARF, or one with no effect on the row.
            _ => {
                let arguments = self.program.arguments.get(usize::from(opcode) - 1).copied();
                for _ in 0..arguments.unwrap_or(0) {
                    bytes::uleb(&mut self.rest)?;
                }
            }
        }
        Some(Step::Nothing)
    }

    /// Executes an instruction with an extended opcode: its length, the opcode, and its arguments.
    fn extended(&mut self) -> Option<Step> {
        let length = usize::try_from(bytes::uleb(&mut self.rest)?).ok()?;
        let (mut instruction, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        match DwLne(bytes::u8(&mut instruction)?) {
            dw::DW_LNE_end_sequence => return Some(Step::End),
            dw::DW_LNE_set_address => {
                self.row.address = bytes::unsigned(&mut instruction, self.program.address_size)?;
            }
            _ => {}
        }
        Some(Step::Nothing)
    }

    #[inline(always)]
    fn advance(&mut self, operations: u64) {
        // `op_index` is ignored: no target of delouse has several operations in one instruction.
        self.row.address =
            self.row.address.wrapping_add(self.program.minimum_length.wrapping_mul(operations));
    }

    #[inline(always)]
    fn advance_line(&mut self, by: i64) {
        self.row.line = self.row.line.wrapping_add(by as u64);
    }
}
