//! Whether an index that moved passed the one that the other side waits for (virtio 1.3, 2.7.10).

/// Whether `event` lies in `old..new` on the circle of 65536.
#[inline]
pub(super) const fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::passed;

    #[test]
    fn an_event_is_passed_when_the_index_moves_over_it() {
        assert!(passed(5, 6, 5));
        assert!(passed(5, 10, 3));
        assert!(!passed(5, 5, 3));
        assert!(!passed(2, 5, 3));
        assert!(passed(0xffff, 0, 0xfff0));
        assert!(!passed(7, 7, 7));
    }
}
