#![allow(clippy::unwrap_used)]

mod derived;
mod frames;
mod mdl;
mod misuse;
mod model;
mod pages;
mod pins;
mod pool;
mod rules;
mod space;
