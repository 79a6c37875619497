//! `.prof` files there and back, bit by bit, and files that are damaged, hostile or something else.

use std::path::PathBuf;

use biopsy::formats::pstats::Pstats;
use biopsy::formats::{ExportOptions, Exporter, Importer, registry};
use biopsy::profile::Profile;
use biopsy::view::stats::{SortKey, TableOptions, View, write_table};
use proptest::prelude::*;

/// Written by `make.py` beside them.
const GOLDEN: [&str; 3] = ["cprofile-3.11", "profile-3.11", "cprofile-2.7"];

fn golden_data(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden/pstats");
    std::fs::read(folder.join(format!("{name}.prof"))).expect(name)
}

fn export(profile: &Profile, options: &ExportOptions) -> Vec<u8> {
    let mut data = Vec::new();
    Pstats
        .export(profile, options, &mut data)
        .expect("exported");
    data
}

#[test]
fn what_is_exported_is_imported_bit_by_bit() {
    for name in GOLDEN {
        let data = golden_data(name);
        assert!(Pstats.recognises(&data[..20]), "{name}");
        assert_eq!(
            registry::sniff(&data).map(|format| format.name),
            Some("pstats")
        );
        let profile = Pstats.import(&data).expect(name);
        let again = Pstats
            .import(&export(&profile, &ExportOptions::default()))
            .expect(name);
        assert_eq!(profile.exact, again.exact);
        assert_eq!(profile.tables.strings(), again.tables.strings());
    }
}

#[test]
fn files_cut_anywhere_are_refused_with_the_place() {
    for name in GOLDEN {
        let data = golden_data(name);
        for end in 0..data.len() {
            let error = Pstats.import(&data[..end]).expect_err("cut").to_string();
            assert!(
                error.contains(&format!("cut short (at byte {end})")),
                "{end}: {error}"
            );
        }
    }
}

#[test]
fn what_is_no_profile_is_refused() {
    for (data, why) in [
        (&b"i\x01\x00\x00\x00"[..], "not a dict"),
        (b"{0", "there is no function in it"),
        (
            b"{)\x00N0",
            "a function is not (file, line, name) (at byte 1)",
        ),
        (
            b"{)\x03z\x00i\x00\x00\x00\x00NN0",
            "a name that is not text (at byte 10)",
        ),
        (
            b"{)\x03z\x00Nz\x00N0",
            "a line that is not a number (at byte 5)",
        ),
        (
            b"{)\x03z\x00i\x00\x00\x00\x00z\x00N0",
            "a row is not (cc, nc, tt, ct, callers) (at byte 12)",
        ),
        (
            b"{)\x03z\x00i\x00\x00\x00\x00z\x00)\x04TTg\x00\x00\x00\x00\x00\x00\xf8\x7fT0",
            "a time that is not finite (at byte 16)",
        ),
    ] {
        let error = Pstats.import(data).expect_err(why);
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(error.exit_code(), 1);
    }
    for text in [
        &b"{\"schema\": 1}"[..],
        b"main;f 3\n",
        b"",
        b"{",
        b"{)",
        b"{(\x03",
    ] {
        assert!(!Pstats.recognises(text));
    }
}

#[test]
fn negative_counts_are_taken_and_those_of_a_sampler_are_samples() {
    // {('a', -1, 'f'): (-1, -1, 0.5, 1)}
    let row = b")\x03z\x01ai\xff\xff\xff\xffz\x01f)\x04i\xff\xff\xff\xffi\xff\xff\xff\xffg\x00\x00\x00\x00\x00\x00\xe0?i\x01\x00\x00\x000";
    let calls = |data: &[u8]| {
        assert!(Pstats.recognises(data));
        let profile = Pstats.import(data).expect("valid");
        let stats = profile.exact.as_ref().expect("exact");
        let [row] = &stats.rows[..] else {
            panic!("{:?}", stats.rows);
        };
        assert_eq!(row.tottime, 0.5);
        assert_eq!(profile.tables.line(row.function), 0);
        (row.ncalls, row.lower_bound, stats.exact)
    };
    assert_eq!(calls(&[&b"{"[..], row].concat()), (0, false, true));
    // ('__sampled__',): True, as profiling.sampling of 3.15 has before them.
    let marked = [&b"{)\x01z\x0b__sampled__T"[..], row].concat();
    assert_eq!(calls(&marked), (1, true, false));
}

#[test]
fn one_dict_referred_to_again_and_again_takes_no_time() {
    // 2,000 rows that all share one dict of 2,000 callers.
    let mut data = b"{".to_vec();
    let mut callers = vec![b'{' | 0x80];
    for line in 0..2000_u32 {
        callers.extend(b")\x03z\x00i");
        callers.extend(line.to_le_bytes());
        callers.extend(b"z\x00T");
    }
    callers.push(b'0');
    for line in 0..2000_u32 {
        data.extend(b")\x03z\x00i");
        data.extend(line.to_le_bytes());
        data.extend(b"z\x01f)\x05TTi\0\0\0\0i\0\0\0\0");
        if line == 0 {
            data.extend(&callers);
        } else {
            data.extend(b"r\x00\x00\x00\x00");
        }
    }
    data.push(b'0');
    let error = Pstats.import(&data).expect_err("refused").to_string();
    assert!(error.contains("again and again"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn mutated_files_never_panic(
        which in 0..GOLDEN.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut data = golden_data(GOLDEN[which]);
        for (place, byte) in changes {
            let at = place.index(data.len());
            data[at] = byte;
        }
        Pstats.recognises(&data);
        if let Ok(profile) = Pstats.import(&data) {
            for view in [View::Stats, View::Callers, View::Callees] {
                let options = TableOptions {
                    sort: vec![SortKey::Cumulative, SortKey::NameFileLine],
                    strip_dirs: true,
                    view,
                    ..TableOptions::default()
                };
                let stats = profile.exact.as_ref().expect("exact");
                write_table(stats, &profile.tables, &options, &mut Vec::new()).expect("vec");
            }
            let again = Pstats.import(&export(&profile, &ExportOptions::default())).expect("ours");
            prop_assert_eq!(profile.exact.map(|exact| exact.rows.len()), again.exact.map(|exact| exact.rows.len()));
        }
    }
}
