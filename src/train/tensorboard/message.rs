//! Messages of protocol buffers, as few as are needed.
//!
//! A field is a key, `number << 3 | wire type`, and its value: 0 a varint, 1 eight bytes, 2 a length and so many bytes, 5
//! four bytes. <https://protobuf.dev/programming-guides/encoding/>

/// `tensorflow.Event`.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// Seconds since 1970.
    pub(super) wall_time: f64,
    /// Steps taken.
    pub(super) step: u64,
    /// What happened.
    pub(super) what: What,
}

/// What an event says.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// The version of the format; the first of every file.
    Version,
    /// A session starts: events of this step and later ones that were written before are void.
    Start,
    /// Numbers and pictures.
    Summary(Vec<Value>),
}

/// `tensorflow.Summary.Value`.
#[derive(Clone, Debug)]
pub(super) struct Value {
    tag: String,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Scalar(f32),
    Image { width: u32, height: u32, channels: u8, png: Vec<u8> },
}

impl Value {
    /// A number.
    pub(super) fn scalar(tag: &str, value: f64) -> Self {
        Self { tag: tag.into(), content: Content::Scalar(value as f32) }
    }

    /// A picture; `None` for bytes that are no PNG.
    pub(super) fn image(tag: &str, png: Vec<u8>) -> Option<Self> {
        // Signature, length and name of the first chunk; then width, height, depth, colour type.
        let head = png.get(16..26).filter(|_| png.starts_with(b"\x89PNG"))?;
        let number = |at: usize| Some(u32::from_be_bytes(head[at..at + 4].try_into().ok()?));
        let channels = match head[9] {
            0 => 1,
            4 => 2,
            6 => 4,
            _ => 3,
        };
        let (width, height) = (number(0)?, number(4)?);
        Some(Self { tag: tag.into(), content: Content::Image { width, height, channels, png } })
    }

    fn encode(&self) -> Vec<u8> {
        let mut message = Message::default();
        message.bytes(1, self.tag.as_bytes());
        match &self.content {
            Content::Scalar(value) => message.four(2, value.to_le_bytes()),
            Content::Image { width, height, channels, png } => {
                let mut image = Message::default();
                image.varint(1, u64::from(*height));
                image.varint(2, u64::from(*width));
                image.varint(3, u64::from(*channels));
                image.bytes(4, png);
                message.bytes(4, &image.0);
            }
        }
        message.0
    }
}

impl Event {
    /// The message's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut message = Message::default();
        message.eight(1, self.wall_time.to_le_bytes());
        message.varint(2, self.step);
        match &self.what {
            What::Version => message.bytes(3, b"brain.Event:2"),
            What::Summary(values) => {
                let mut summary = Message::default();
                for value in values {
                    summary.bytes(1, &value.encode());
                }
                message.bytes(5, &summary.0);
            }
            What::Start => {
                // `SessionLog.status` = `START`.
                let mut session = Message::default();
                session.varint(1, 1);
                message.bytes(7, &session.0);
            }
        }
        message.0
    }
}

/// Fields one after the other.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u64, wire: u64) {
        self.number(field << 3 | wire);
    }

    /// Seven bits a byte, the lowest first; the highest bit says that more follow.
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        self.number(value);
    }

    fn eight(&mut self, field: u64, value: [u8; 8]) {
        self.key(field, 1);
        self.0.extend_from_slice(&value);
    }

    fn four(&mut self, field: u64, value: [u8; 4]) {
        self.key(field, 5);
        self.0.extend_from_slice(&value);
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, 2);
        self.number(value.len() as u64);
        self.0.extend_from_slice(value);
    }
}
