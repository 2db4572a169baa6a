use super::*;

#[cfg(not(loom))]
#[test]
fn a_worker_sees_the_newest_value_once() {
    let (mut control, mut readers) = new(1, 1);
    let r = &mut readers[0];
    assert!(!r.changed());
    control.publish(2);
    control.publish(3);
    assert!(r.changed());
    r.adopt();
    assert_eq!(**r.held(), 3);
    assert!(!r.changed());
}

#[cfg(not(loom))]
#[test]
fn a_value_is_kept_until_every_worker_has_passed_it() {
    let (mut control, mut readers) = new(0, 2);
    let g = control.publish(1);
    readers[0].adopt();
    readers[0].acknowledge();
    assert!(control.acknowledged(0, g) && !control.acknowledged(1, g));
    assert_eq!(control.retire(), 1);
    readers[1].adopt();
    readers[1].acknowledge();
    assert_eq!(control.retire(), 0);
}

#[cfg(not(loom))]
#[test]
fn sleep_is_called_off_when_something_was_published() {
    let (mut control, readers) = new(0, 1);
    control.publish(1);
    assert!(!readers[0].sleep());
    assert!(!control.asleep(0));
}

/// A worker that control counted as asleep never runs the old value again.
#[cfg(loom)]
#[test]
fn a_sleeper_adopts_before_it_touches_anything() {
    loom::model(|| {
        let (mut control, mut readers) = new(0u32, 1);
        let mut reader = readers.remove(0);
        let worker = loom::thread::spawn(move || {
            let slept = reader.sleep();
            if slept {
                reader.wake();
            }
            if reader.changed() {
                reader.adopt();
                reader.acknowledge();
            }
            (slept, **reader.held())
        });
        let g = control.publish(1);
        let counted = control.asleep(0);
        let (_, ran) = worker.join().unwrap();
        if counted {
            assert_eq!(ran, 1, "control counted the sleeper as passed, yet it ran the old value");
        }
        if ran == 1 {
            assert!(control.acknowledged(0, g));
            assert_eq!(control.retire(), 0);
        }
    });
}

/// Publishing twice while a worker adopts: it ends with the newest value and no value is freed under it.
#[cfg(loom)]
#[test]
fn the_newest_value_wins_and_old_ones_outlive_their_readers() {
    loom::model(|| {
        let (mut control, mut readers) = new(0u32, 1);
        let mut reader = readers.remove(0);
        let worker = loom::thread::spawn(move || {
            for _ in 0..2 {
                if reader.changed() {
                    reader.adopt();
                    reader.acknowledge();
                }
            }
            reader
        });
        control.publish(1);
        control.publish(2);
        control.retire();
        let mut reader = worker.join().unwrap();
        if reader.changed() {
            reader.adopt();
            reader.acknowledge();
        }
        assert_eq!(**reader.held(), 2);
        assert_eq!(control.retire(), 0);
    });
}
