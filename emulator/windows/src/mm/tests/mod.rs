#![allow(clippy::unwrap_used)]

mod derived;
mod frames;
mod mdl;
mod model;
mod pages;
mod pins;
mod pool;
mod rules;
mod space;
