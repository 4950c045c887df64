//! A file that is cut under a memory map: the process ends, and says of which file.

use std::fs::OpenOptions;
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use crate::disk::{Directory, Files, MAP_FAILED_EXIT};
use crate::limits::BLOCK_BYTES;

/// What the child is told to do.
const CHILD: &str = "TRILITH_TEST_MAPPING";

/// Runs one test of this file again, in a process of its own.
fn run_again(name: &str, directory: &std::path::Path) -> Output {
    let name = format!("disk::tests::mapping::{name}");
    let program = std::env::current_exe().expect("a test has a program");
    Command::new(program).args(["--exact", &name, "--nocapture"]).env(CHILD, directory).output().expect("it runs")
}

#[test]
fn a_mapped_file_that_is_cut_ends_the_process_with_its_name() {
    if let Some(path) = std::env::var_os(CHILD) {
        let directory = Directory::open(path).unwrap();
        let file = directory.open("log/1.segment").unwrap();
        let other = directory.open_read("log/1.segment").unwrap();
        let (map, _other) = (directory.map(file).unwrap(), directory.map(other).unwrap());
        drop(directory.map(file).unwrap());
        assert_eq!(map[3 * BLOCK_BYTES], 7);
        let path = directory.root().join("log/1.segment");
        OpenOptions::new().write(true).open(path).unwrap().set_len(BLOCK_BYTES as u64).unwrap();
        black_box(map[3 * BLOCK_BYTES + 5]);
        unreachable!("nothing can be read there");
    }
    let home = tempfile::tempdir().unwrap();
    let directory = Directory::open(home.path()).unwrap();
    directory.create_directory("log").unwrap();
    let file = directory.create("log/1.segment").unwrap();
    directory.write(file, 0, &vec![7; 4 * BLOCK_BYTES]).unwrap();
    directory.close(file);
    let output = run_again("a_mapped_file_that_is_cut_ends_the_process_with_its_name", home.path());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(i32::from(MAP_FAILED_EXIT)), "{:?}: {said}", output.status);
    let path = home.path().join("log/1.segment");
    let expected = format!("trilith: cannot read {} at offset 12293 through memory (SIGBUS)", path.display());
    assert!(said.lines().any(|line| line.starts_with(&expected)), "{said}");
}

/// What is none of our maps is left to whoever handled the signal before.
#[test]
fn a_sigbus_of_somebody_else_is_passed_on() {
    if let Some(path) = std::env::var_os(CHILD) {
        let directory = Directory::open(path).unwrap();
        let file = directory.open("one").unwrap();
        let _map = directory.map(file).unwrap();
        let foreign = OpenOptions::new().read(true).write(true).open(directory.root().join("one")).unwrap();
        // SAFETY: what follows is the very fault that makes a map unsafe, in a process of its own.
        let map = unsafe { memmap2::Mmap::map(&foreign) }.unwrap();
        foreign.set_len(0).unwrap();
        black_box(map[5]);
        unreachable!("nothing can be read there");
    }
    let home = tempfile::tempdir().unwrap();
    let directory = Directory::open(home.path()).unwrap();
    let file = directory.create("one").unwrap();
    directory.write(file, 0, &vec![7; BLOCK_BYTES]).unwrap();
    directory.close(file);
    let output = run_again("a_sigbus_of_somebody_else_is_passed_on", home.path());
    assert_eq!(output.status.signal(), Some(rustix::process::Signal::BUS.as_raw()), "{:?}", output.status);
}

/// Beyond a number of maps at once one reads instead; a map that goes makes room for another.
#[test]
fn maps_are_bounded() {
    if let Some(path) = std::env::var_os(CHILD) {
        let directory = Directory::open(path).unwrap();
        let file = directory.open("one").unwrap();
        let maps: Vec<_> = (0..64).map(|_| directory.map(file).unwrap()).collect();
        assert!(maps.iter().all(|map| map[5] == 7));
        assert!(directory.map(file).is_err());
        drop(maps);
        assert_eq!(directory.map(file).unwrap().len(), BLOCK_BYTES);
        directory.close(file);
        let closed = directory.map(file).unwrap_err();
        assert_eq!(closed.kind(), std::io::ErrorKind::NotFound);
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let directory = Directory::open(home.path()).unwrap();
    let file = directory.create("one").unwrap();
    directory.write(file, 0, &vec![7; BLOCK_BYTES]).unwrap();
    directory.close(file);
    let output = run_again("maps_are_bounded", home.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
