use super::Sequence;

/// Words of the `n`th state.
const fn state<const N: usize>(n: u64) -> [u64; N] {
    [n; N]
}

#[cfg(loom)]
#[test]
fn what_is_read_is_one_state_and_never_an_older_one() {
    use crate::sync::Arc;
    loom::model(|| {
        let cell = Arc::new(Sequence::new(state::<2>(0)));
        let reader = {
            let cell = cell.clone();
            loom::thread::spawn(move || {
                let mut last = 0;
                for _ in 0..2 {
                    let Some((version, words)) = cell.read() else { continue };
                    assert_eq!(words, state(version / 2), "version {version}");
                    assert!(version >= last);
                    last = version;
                }
            })
        };
        for n in 1..=2 {
            cell.write(&state(n));
        }
        reader.join().unwrap();
    });
}

#[cfg(loom)]
#[test]
fn who_sees_the_last_version_reads_its_words() {
    use crate::sync::Arc;
    loom::model(|| {
        let cell = Arc::new(Sequence::new(state::<2>(0)));
        let writer = {
            let cell = cell.clone();
            loom::thread::spawn(move || cell.write(&state(1)))
        };
        // As a worker does: it compares the version, and copies what has changed; later once more.
        let (mut known, mut words) = (0, state(0));
        for _ in 0..2 {
            if cell.version() != known
                && let Some(news) = cell.read()
            {
                (known, words) = news;
            }
        }
        writer.join().unwrap();
        if cell.version() != known {
            (known, words) = cell.read().unwrap();
        }
        assert_eq!((known, words), (2, state(1)));
    });
}

#[cfg(not(loom))]
#[test]
fn a_reader_sees_one_state_or_none_never_a_mixture() {
    let cell = std::sync::Arc::new(Sequence::new(state::<100>(0)));
    let reader = {
        let cell = cell.clone();
        std::thread::spawn(move || {
            let (mut seen, mut last) = (0, 0);
            while last < 8000 {
                if let Some((version, words)) = cell.read() {
                    assert_eq!(words, state(version / 2), "version {version}");
                    assert!(version >= last);
                    (seen, last) = (seen + 1, version);
                }
            }
            seen
        })
    };
    for n in 1..=4000 {
        cell.write(&state(n));
    }
    assert!(reader.join().unwrap() > 0);
}
