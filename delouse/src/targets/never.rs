//! A target that does not exist, for systems on which a process cannot be captured.

use std::fs::File;

use super::SnapshotError;
use super::core_dump::{CoreImage, ProcessIds, ThreadNote};
use crate::snapshot::{Address, Capture, Mapping, Snapshot, Thread};

/// Never constructed.
#[derive(Debug)]
pub(crate) enum Never {}

impl Snapshot for Never {
    fn read(&self, _: Address, _: &mut [u8]) -> usize {
        match *self {}
    }

    fn mappings(&self) -> &[Mapping] {
        match *self {}
    }

    fn threads(&self) -> &[Thread] {
        match *self {}
    }

    fn capture(&self) -> &Capture {
        match *self {}
    }
}

impl CoreImage for Never {
    fn ids(&self) -> ProcessIds {
        match *self {}
    }

    fn auxv(&self) -> Vec<u8> {
        match *self {}
    }

    fn listed_mappings(&self) -> &[Mapping] {
        match *self {}
    }

    fn pagemap(&self) -> Option<&File> {
        match *self {}
    }

    fn living_pagemap(&self) -> Option<File> {
        match *self {}
    }

    fn registers(&self) -> Vec<(i32, &[u64])> {
        match *self {}
    }

    fn thread_notes(&self, _: usize) -> Vec<ThreadNote> {
        match *self {}
    }

    fn intact(&self) -> Result<(), SnapshotError> {
        match *self {}
    }
}
