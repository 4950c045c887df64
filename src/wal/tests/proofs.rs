//! The proofs of the log on the simulated disk: one test for each row of the table in docs/testing.md. How much of each
//! is done: see [`crate::sim::proofs`]. A violation is a panic that names its case.

use super::{crash, dead, errors, forged, holes, identity, lost, random, rot, tail, voter};
use crate::sim::proofs::{Proof, prove};

#[test]
fn d01_each_short_sequence_cut_at_each_operation() {
    prove("D1", crash::short_sequences, [63_600, 191_000, 1_360_000]);
}

#[test]
fn d02_random_work_cut_anywhere() {
    prove("D2", random::cycles, [2_500, 100_000, 10_000_000]);
}

#[test]
fn d03_the_tail_cut_at_each_byte() {
    prove("D3", tail::cut_at_each_byte, [16_384; 3]);
}

#[test]
fn d04_bits_and_blocks_of_the_log_and_of_the_superblock() {
    let run = |proof: &Proof| {
        rot::flipped_bits(proof);
        rot::damaged_blocks(proof);
        voter::damaged_blocks(proof);
        voter::flipped_bits(proof);
    };
    prove("D4", run, [5_500, 202_000, 1_700_000]);
}

#[test]
fn d05_what_is_covered_is_never_torn() {
    let run = |proof: &Proof| {
        tail::damaged_where_it_is_covered_and_where_not(proof);
        dead::dead_everywhere(proof);
    };
    prove("D5", run, [2_200, 24_300, 163_000]);
}

#[test]
fn d06_blocks_in_other_places_and_payloads_like_frames() {
    let run = |proof: &Proof| {
        rot::exchanged_blocks(proof);
        rot::older_generations(proof);
        forged::payloads_like_frames(proof);
        forged::torn_frames_that_hold_frames(proof);
    };
    prove("D6", run, [21_100, 209_000, 1_094_000]);
}

#[test]
fn d07_zeros_never_decode() {
    prove("D7", holes::zeros, [4_200, 12_700, 12_700]);
}

#[test]
fn d08_an_error_at_each_operation() {
    prove("D8", errors::an_error_at_each_operation, [1_100, 3_400, 3_400]);
}

#[test]
fn d09_a_flush_fails_once() {
    let run = |proof: &Proof| {
        errors::a_flush_fails_once(proof);
        voter::a_flush_fails_once(proof);
    };
    prove("D9", run, [6_100, 13_800, 13_800]);
}

#[test]
fn d10_names_lost_and_strange_files() {
    let run = |proof: &Proof| {
        lost::names(proof);
        lost::files(proof);
    };
    prove("D10", run, [1_700, 7_200, 27_500]);
}

#[test]
fn d12_the_disk_is_full_and_free_again() {
    prove("D12", errors::full_and_free_again, [60, 1_000, 1_000]);
}

#[test]
fn d14_directories_that_are_refused() {
    prove("D14", identity::refusals, [16; 3]);
}
