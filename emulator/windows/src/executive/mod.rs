//! executive
