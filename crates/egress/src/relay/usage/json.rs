//! Answers in one piece: finds the value of `usage` in the outermost object without keeping the rest. What a model wrote
//! (a tool's input may have a key of that name) stands deeper and is not looked at.

/// Longest value that is kept.
const MAX_VALUE_BYTES: usize = 64 * 1024;

const KEY: &[u8] = b"usage";

#[derive(Default)]
pub(super) struct TopLevelUsage {
    depth: u64,
    in_string: bool,
    escaped: bool,
    /// The next string of the outermost object is a key.
    key_next: bool,
    /// The key being read or read last, as far as it can be [`KEY`].
    key: Vec<u8>,
    reading_key: bool,
    /// The value being kept.
    value: Option<Vec<u8>>,
    not_an_object: bool,
}

impl TopLevelUsage {
    pub(super) fn push(&mut self, piece: &[u8], found: &mut impl FnMut(&[u8])) {
        for byte in piece {
            if self.not_an_object {
                return;
            }
            if self.in_string {
                self.string_byte(*byte);
            } else {
                self.structure_byte(*byte, found);
            }
        }
    }

    fn string_byte(&mut self, byte: u8) {
        self.keep(byte);
        if self.escaped {
            self.escaped = false;
        } else if byte == b'\\' {
            self.escaped = true;
        } else if byte == b'"' {
            self.in_string = false;
            self.reading_key = false;
            return;
        }
        if self.reading_key && self.key.len() <= KEY.len() {
            self.key.push(byte);
        }
    }

    fn structure_byte(&mut self, byte: u8, found: &mut impl FnMut(&[u8])) {
        if self.depth == 1 && matches!(byte, b',' | b'}') {
            self.value_ended(found);
            self.key_next = true;
        }
        self.keep(byte);
        match byte {
            b'"' => {
                self.in_string = true;
                self.reading_key = self.depth == 1 && self.key_next;
                if self.reading_key {
                    self.key.clear();
                }
            }
            b':' if self.depth == 1 && self.key_next => {
                self.key_next = false;
                self.value = (self.key == KEY).then(Vec::new);
            }
            b'{' | b'[' => {
                self.not_an_object = self.depth == 0 && byte == b'[';
                self.depth += 1;
                self.key_next = self.depth == 1;
            }
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }

    fn keep(&mut self, byte: u8) {
        if let Some(value) = &mut self.value {
            value.push(byte);
            if value.len() > MAX_VALUE_BYTES {
                self.value = None;
            }
        }
    }

    fn value_ended(&mut self, found: &mut impl FnMut(&[u8])) {
        if let Some(value) = self.value.take() {
            found(&value);
        }
    }
}
