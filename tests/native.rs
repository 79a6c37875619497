//! `--native`: the C functions below Python's. Only in a build with the feature `native`.

#![cfg(feature = "native")]
// What a test did not expect is its failure, in what several tests share too.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::unwrap_used
)]

mod common;

use common::{Python, biopsy, in_company};

/// Long calls into zlib; none of them lasts long enough to be all that is seen.
const COMPRESS: &str = "
import os, sys, zlib
def pack(data):
    return zlib.compress(data, 9)
def main():
    data = os.urandom(1 << 15) * 32
    print('ready', flush=True)
    while True:
        pack(data)
main()
";

#[test]
fn c_functions_are_seen_below_the_python_ones() {
    let _shared = in_company();
    let mut seen = 0;
    for python in Python::all() {
        let stage = python.stage();
        let mut target = python.start(&[&stage.put("compress.py", COMPRESS)]);
        let pid = target.pid.to_string();
        let ran = biopsy(&[
            "attach",
            &pid,
            "--native",
            "--blocking",
            "-d",
            "1",
            "-r",
            "100",
            "-q",
            "-f",
            "collapsed",
        ])
        .ok();
        target.assert_free();
        assert!(
            ran.stdout.contains("main") && ran.stdout.contains("pack"),
            "{python}{ran}"
        );
        let below = ran.stdout.lines().filter(|line| {
            let at = line.find("pack").map(|at| &line[at..]);
            at.is_some_and(|rest| rest.contains("deflate") || rest.contains("compress"))
        });
        let count = below.count();
        eprintln!("{python}: {count} stacks with zlib below pack()");
        seen += usize::from(count > 0);
        let dump = biopsy(&["dump", &pid, "--native", "--blocking"]).ok();
        assert!(dump.stdout.contains("main"), "{python}{dump}");
        target.assert_free();
    }
    assert!(seen > 0, "no interpreter showed a frame of zlib");
}
