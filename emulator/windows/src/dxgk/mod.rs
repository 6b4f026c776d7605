//! dxgk
