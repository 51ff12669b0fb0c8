//! The configuration: text, then raw values that keep where they stood, then checked types.

pub mod checked;
