//! The EDID of a display (VESA E-EDID 1.4): one base block, made from the
//! preferred size.

/// Bytes of a block.
pub const BLOCK: usize = 128;
/// Largest side that a detailed timing can say: 12 bits.
const MAX_ACTIVE: u32 = 0xfff;
/// Frames a second of the preferred timing.
const REFRESH: u64 = 60;
/// Horizontal blanking of VESA CVT 1.2 with reduced blanking, pixels: front
/// porch, sync, back porch.
const H_BLANK: (u32, u32, u32) = (48, 32, 80);
/// Vertical front porch and least back porch of the same, lines.
const V_PORCHES: (u32, u32) = (3, 6);

/// What does not depend on the display, bytes 0 to 34.
const FRONT: [u8; 35] = [
    0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, // header
    0x11, 0xa1, // manufacturer "DMA": three letters of five bits
    0xa5, 0xd3, // product
    0, 0, 0, 0, // serial number
    0, 36, // week unknown, 2026
    1, 4,    // EDID 1.4
    0xa5, // digital, 8 bits a colour, DisplayPort
    0, 0,    // centimetres
    0x78, // gamma 2.2
    0x06, // RGB 4:4:4; sRGB; the first timing is the native one
    0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54, // sRGB primaries
];

/// Established timings at 60 Hz: size, byte, bit.
const ESTABLISHED: [((u32, u32), usize, u8); 3] = [
    ((640, 480), 35, 1 << 5),
    ((800, 600), 35, 1 << 0),
    ((1024, 768), 36, 1 << 3),
];

/// The block of scanout `number`, whose display has `size` pixels. A side
/// beyond 4095, which no detailed timing can say, is told as 4095.
pub fn block(number: u32, size: (u32, u32)) -> [u8; BLOCK] {
    let size = (size.0.min(MAX_ACTIVE), size.1.min(MAX_ACTIVE));
    let mut block = [0; BLOCK];
    put(&mut block, 0, &FRONT);
    put(&mut block, 12, &(number + 1).to_le_bytes());
    let centimetres = |pixels| (millimetres(pixels) / 10).max(1) as u8;
    put(&mut block, 21, &[centimetres(size.0), centimetres(size.1)]);
    for (mode, at, bit) in ESTABLISHED {
        if mode.0 <= size.0
            && mode.1 <= size.1
            && let Some(byte) = block.get_mut(at)
        {
            *byte |= bit;
        }
    }
    // No standard timings.
    put(&mut block, 38, &[1; 16]);
    put(&mut block, 54, &timing(size));
    put(&mut block, 72, &text(0xfc, b"dmasan"));
    // Two dummy descriptors.
    put(&mut block, 90, &text(0x10, b""));
    put(&mut block, 108, &text(0x10, b""));
    let sum = block.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    put(&mut block, BLOCK - 1, &[sum.wrapping_neg()]);
    block
}

/// At 96 pixels an inch.
fn millimetres(pixels: u32) -> u32 {
    pixels * 254 / 960
}

/// Lines of vertical sync, by which CVT tells the aspect ratio.
fn vertical_sync((width, height): (u32, u32)) -> u32 {
    [(4, 3, 4), (16, 9, 5), (16, 10, 6), (5, 4, 7), (15, 9, 7)]
        .into_iter()
        .find(|(x, y, _)| width * y == height * x)
        .map_or(10, |(_, _, lines)| lines)
}

/// A detailed timing descriptor (3.10.2): reduced blanking, 60 Hz, or as
/// many frames a second as the greatest pixel clock allows.
fn timing((width, height): (u32, u32)) -> [u8; 18] {
    let (h_front, h_sync, h_back) = H_BLANK;
    let h_blank = h_front + h_sync + h_back;
    let (v_front, v_back) = V_PORCHES;
    let v_sync = vertical_sync((width, height));
    // Blanking of at least 460 us of the frame's 16,666.7: 460 / 16,206.7.
    let v_blank = (height * 1380 / 48_620 + 1).max(v_front + v_sync + v_back);
    let pixels = u64::from(width + h_blank) * u64::from(height + v_blank);
    let clock = (pixels * REFRESH / 10_000).clamp(1, 0xffff) as u16;
    let [clock_low, clock_high] = clock.to_le_bytes();
    let (mm_x, mm_y) = (millimetres(width), millimetres(height));
    let low = |value: u32| value as u8;
    // Bits 8 to 11 of two values.
    let high = |a: u32, b: u32| ((a >> 8) << 4 | b >> 8) as u8;
    [
        clock_low,
        clock_high,
        low(width),
        low(h_blank),
        high(width, h_blank),
        low(height),
        low(v_blank),
        high(height, v_blank),
        low(h_front),
        low(h_sync),
        low(v_front << 4 | v_sync),
        // No higher bits of porches and syncs.
        0,
        low(mm_x),
        low(mm_y),
        high(mm_x, mm_y),
        0,
        0,
        // Digital, separate syncs; horizontal positive, vertical negative.
        0x1a,
    ]
}

/// A display descriptor with a text of up to 13 bytes (3.10.3); the text ends
/// with a line feed and is filled up with spaces. The dummy one is zero.
fn text(tag: u8, text: &[u8]) -> [u8; 18] {
    let mut descriptor = [0; 18];
    put(&mut descriptor, 3, &[tag]);
    if !text.is_empty() {
        put(&mut descriptor, 5, &[b' '; 13]);
        put(&mut descriptor, 5, text);
        put(&mut descriptor, 5 + text.len(), b"\n");
    }
    descriptor
}

fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    for (place, byte) in to.iter_mut().skip(at).zip(bytes) {
        *place = *byte;
    }
}
