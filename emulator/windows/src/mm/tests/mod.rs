#![allow(clippy::unwrap_used)]

mod frames;
mod mdl;
mod pages;
mod pool;
mod rules;
mod space;
