use super::*;

#[test]
fn what_waits_is_counted_while_it_waits() {
    let held = Held::new(100);
    let mut waiting = Waiting::new(held.clone());
    waiting.keep(vec![0; 60]);
    assert!(!held.is_full());
    let mut other = Waiting::new(held.clone());
    other.keep(vec![0; 60]);
    assert!(held.is_full());
    waiting.pass(59);
    assert!(held.is_full() && waiting.rest().len() == 1);
    waiting.pass(1);
    assert!(!held.is_full());
    drop(other);
    assert_eq!(held.bytes.load(Relaxed), 0);
}
