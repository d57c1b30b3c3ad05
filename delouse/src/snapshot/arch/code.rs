//! What machine code says about the stack, where no unwind table describes it.

/// Where a function has stored what its caller needs, at one of its instructions. Distances are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameLayout {
    /// The caller's stack pointer.
    pub(crate) caller_sp: CallerSp,
    /// The caller's frame pointer.
    pub(crate) caller_fp: CallerFp,
}

/// How the caller's stack pointer is computed. The return address is in the word below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallerSp {
    /// This far above the stack pointer.
    AboveSp(u64),
    /// This far above the frame pointer.
    AboveFp(u64),
}

/// Where the caller's frame pointer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallerFp {
    /// In its register.
    Unchanged,
    /// This far below the caller's stack pointer.
    Stored(u64),
    /// Not known.
    Unknown,
}

/// A call instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// Of the function at this address.
    Direct(u64),
    /// Of a function whose address is in a register or in memory.
    Indirect,
}
