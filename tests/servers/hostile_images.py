"Photos that are made to cost much: each is a few bytes, or a few megabytes, and is written by a function of its own."

import io
import struct
import zlib

from PIL import Image

MAKERS, BOMBS = {}, set()


def maker(make):
    "Register a function that returns a photo's bytes, and has its name, with the suffix behind the last underscore."
    MAKERS[make.__name__] = make
    return make


def bomb(make):
    "The same for a photo that has to be refused as too large."
    BOMBS.add(make.__name__)
    return maker(make)


def stored(image, format, **how):
    file = io.BytesIO()
    image.save(file, format, **how)
    return file.getvalue()


def segment(marker, content):
    return bytes([0xFF, marker]) + struct.pack('>H', len(content) + 2) + content


def jpeg_scans(width, height, scans, refine=True, components=3, sof=0xC2):
    "A progressive JPEG all of whose scans say that nothing comes: a few bytes each, and a walk over all blocks."
    ids = range(1, components + 1)
    frame = struct.pack('>BHHB', 8, height, width, components) + b''.join(bytes([i, 0x11, 0]) for i in ids)
    out = [b'\xff\xd8', segment(0xDB, b'\0' + b'\1' * 64), segment(sof, frame)]
    for table, value in ((0x00, 0), (0x10, 0xE0)):  # one code each: no difference; a run of up to 32,767 empty blocks
        out.append(segment(0xC4, bytes([table, 1]) + bytes(15) + bytes([value])))
    if sof == 0xC2:
        out.append(segment(0xDA, bytes([components]) + b''.join(bytes([i, 0]) for i in ids) + b'\0\0\1') + b'\0' * 4)
    bits = ('0' + '1' * 14) * (width * height // 64 // 32767 + 1)
    bits += '1' * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, 'big').replace(b'\xff', b'\xff\0')
    for k in range(scans):
        spectrum = bytes([1, 63, 0x10 if refine and k >= components else 0x01]) if sof == 0xC2 else b'\0\x3f\0'
        out += [segment(0xDA, bytes([1, k % components + 1, 0]) + spectrum), data]
    return b''.join(out) + b'\xff\xd9'


def exif_tags(many, size, length, next_at=0):
    "Exif whose tags all have the same bytes as their value."
    tags = b''.join(struct.pack('<HHLL', 1000 + i, 7, size, 8) for i in range(many))
    return (b'II*\0\x08\0\0\0' + struct.pack('<H', many) + tags + struct.pack('<L', next_at)).ljust(length, b'\0')


def exif_loop():
    "Exif whose directories are each other's sub-directories."
    tags = ((0x0112, 3, 1, 6), (0x8769, 4, 1, 8), (0x8825, 4, 1, 8), (0x014A, 4, 1, 8))
    return b'II*\0\x08\0\0\0\4\0' + b''.join(struct.pack('<HHLL', *tag) for tag in tags) + struct.pack('<L', 8)


def with_segments(*segments):
    "A small JPEG with segments in front of its own."
    photo = stored(Image.new('RGB', (64, 64), 'steelblue'), 'JPEG')
    return photo[:2] + b''.join(segments) + photo[2:]


def chunk(name, content):
    return struct.pack('>L', len(content)) + name + content + struct.pack('>L', zlib.crc32(name + content))


def png(width, height, *chunks, depth=8, colour=2, interlace=0, data=None):
    "A PNG of zeros, with chunks in front of its pixels."
    head = chunk(b'IHDR', struct.pack('>LLBBBBB', width, height, depth, colour, 0, 0, interlace))
    if data is None:
        bits = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] * depth
        data = zeros((-(-width * bits // 8) + 1) * height)
    palette = chunk(b'PLTE', bytes(768)) if colour == 3 else b''
    return b'\x89PNG\r\n\x1a\n' + head + palette + b''.join(chunks) + chunk(b'IDAT', data) + chunk(b'IEND', b'')


def zeros(many):
    "So many zeros, compressed: one block again and again."
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = packer.compress(bytes(many & 0xFFFFF)) + packer.flush()
    return b'\x78\xda' + block * (many >> 20) + rest + struct.pack('>L', many % 65521 << 16 | 1)


def tiff(width, height, compression=1, samples=3, bits=8, extra=(), data=b'', rows=None, strips=1, counts=None):
    "A TIFF whose strips are `data`, all of them the same."
    counts = len(data) if counts is None else counts
    tags = {
        256: (4, width),
        257: (4, height),
        258: (3, bits),
        259: (3, compression),
        262: (3, 2 if samples == 3 else 1),
    }
    tags |= {273: (4, 8), 277: (3, samples), 278: (4, rows or height), 279: (4, counts), 284: (3, 1)} | dict(extra)
    body, values = data + b'\0' * (len(data) % 2), b''
    if strips > 1:
        at = 8 + len(body)
        values = struct.pack(f'<{strips}L', *[8] * strips) + struct.pack(f'<{strips}L', *[counts] * strips)
    out = b''
    for tag, (kind, value) in sorted(tags.items()):
        many = strips if tag in (273, 279) else 1
        place = {273: at, 279: at + 4 * strips}[tag] if many > 1 else value
        out += struct.pack('<HHLL', tag, kind, many, place)
    where = 8 + len(body) + len(values)
    return b'II*\0' + struct.pack('<L', where) + body + values + struct.pack('<H', len(tags)) + out + bytes(4)


def webp(width, height):
    "A lossless WebP of one colour, in 34 bytes, whatever its size."
    small = stored(Image.new('RGB', (16, 16)), 'WEBP', lossless=True)
    size = int.from_bytes(small[21:25], 'little') & ~0xFFFFFFF | (width - 1) | (height - 1) << 14
    return small[:21] + size.to_bytes(4, 'little') + small[25:]


def webp_canvas(width, height):
    "A WebP whose header promises a canvas."
    small = stored(Image.new('RGB', (16, 16)), 'WEBP', lossless=True)[12:]
    size = (width - 1).to_bytes(3, 'little') + (height - 1).to_bytes(3, 'little')
    frame = b'\0' * 6 + b'\x0f\0\0\x0f\0\0' + b'\x64\0\0\0' + small
    chunks = b'VP8X' + struct.pack('<L', 10) + b'\x02\0\0\0' + size + b'ANIM' + struct.pack('<L', 6) + bytes(6)
    chunks += b'ANMF' + struct.pack('<L', len(frame)) + frame
    return b'RIFF' + struct.pack('<L', 4 + len(chunks)) + b'WEBP' + chunks


def bmp(width, height, data, compression=0, bits=8):
    palette = bytes(1024) if bits == 8 else b''
    head = struct.pack(
        '<LllHHLLllLL', 40, width, height, 1, bits, compression, len(data), 0, 0, 256 if palette else 0, 0
    )
    return b'BM' + struct.pack('<LLL', 54 + len(palette) + len(data), 0, 54 + len(palette)) + head + palette + data


def gif(width, height, body):
    return b'GIF89a' + struct.pack('<HHBBB', width, height, 0x80, 0, 0) + bytes(6) + body + b';'


def gif_frame(width, height, data=b'\2\2\x44\1\0'):
    return b',' + struct.pack('<HHHHB', 0, 0, width, height, 0) + data


@bomb
def thousands_of_scans_jpg():
    return jpeg_scans(4000, 3000, 9000)


@bomb
def scans_of_one_block_jpg():
    return jpeg_scans(8, 8, 500_000)


@maker
def refining_scans_up_to_the_limit_jpg():
    return jpeg_scans(8000, 6000, 18)


@bomb
def a_hundred_megapixels_in_scans_jpg():
    return jpeg_scans(10_000, 10_000, 30, components=1)


@bomb
def scans_hidden_behind_a_reserved_marker_jpg():
    photo = jpeg_scans(4000, 3000, 9000)
    at = photo.index(b'\xff\xda', photo.index(b'\xff\xda') + 2)
    return photo[:at] + b'\xff\x02\xff\xff' + photo[at:]


@bomb
def scans_behind_fill_bytes_jpg():
    return jpeg_scans(4000, 3000, 9000).replace(b'\xff\xda', b'\xff\xff\xff\xda')


@bomb
def sequential_scans_jpg():
    return jpeg_scans(4000, 3000, 9000, sof=0xC1)


@bomb
def huge_and_empty_jpg():
    return jpeg_scans(65_500, 65_500, 0)


@bomb
def huge_progressive_in_four_colours_jpg():
    return jpeg_scans(9_900, 9_900, 1, components=4)


@maker
def long_and_thin_jpg():
    return jpeg_scans(65_500, 8, 300)


@bomb
def segments_without_end_jpg():
    return with_segments(segment(0xFE, b'') * 2_000_000)


@bomb
def fill_without_end_jpg():
    return with_segments(b'\xff' * 20_000_000)


@bomb
def tags_that_overlap_jpg():
    return with_segments(segment(0xE1, b'Exif\0\0' + exif_tags(1900, 60_000, 65_000)))


@bomb
def pictures_that_overlap_jpg():
    return with_segments(segment(0xE2, b'MPF\0' + exif_tags(1900, 60_000, 65_000)))


@bomb
def exif_in_many_segments_jpg():
    first = segment(0xE1, b'Exif\0\0' + exif_tags(1900, 20_000_000, 65_000))
    return with_segments(first, segment(0xE1, b'Exif\0\0' + bytes(65_000)) * 350)


@maker
def exif_that_goes_round_jpg():
    return with_segments(segment(0xE1, b'Exif\0\0' + exif_loop()))


@maker
def many_pictures_jpg():
    frames = [Image.new('RGB', (32, 32), (i % 256, 0, 0)) for i in range(300)]
    return stored(frames[0], 'MPO', save_all=True, append_images=frames[1:])


@maker
def no_height_jpg():
    return jpeg_scans(640, 0, 1)


@maker
def cut_off_jpg():
    return jpeg_scans(4000, 3000, 60)[:300]


@maker
def promised_in_full_png():
    return png(9_999, 9_999)


@bomb
def promised_with_transparency_png():
    return png(9_999, 9_999, colour=6)


@maker
def promised_interlaced_png():
    return png(9_999, 9_999, interlace=1)


@bomb
def sixteen_bits_png():
    return png(9_999, 9_999, colour=0, depth=16)


@maker
def two_colours_png():
    return png(9_999, 9_999, chunk(b'tRNS', b'\0'), colour=3, depth=1)


@bomb
def one_row_png():
    return png(99_000_000, 1, depth=16)


@bomb
def one_column_png():
    return png(1, 99_000_000, depth=1, colour=0)


@maker
def promised_but_empty_png():
    return png(9_999, 9_999, data=zlib.compress(b''))


@maker
def no_pixels_png():
    return png(0, 0)


@bomb
def more_than_can_be_png():
    return png(2**31 - 1, 2**31 - 1, data=zlib.compress(b''))


@bomb
def text_that_swells_png():
    return png(64, 64, chunk(b'zTXt', b'a\0\0' + zeros(500_000_000)))


@bomb
def texts_that_swell_png():
    text = zeros(999_000)
    return png(64, 64, *[chunk(b'zTXt', b'a%d\0\0' % i + text) for i in range(2000)])


@bomb
def international_text_that_swells_png():
    return png(64, 64, chunk(b'iTXt', b'a\0\1\0\0\0' + zeros(500_000_000)))


@bomb
def profile_that_swells_png():
    return png(64, 64, chunk(b'iCCP', b'a\0\0' + zeros(500_000_000)))


@bomb
def chunks_without_end_png():
    return png(64, 64, chunk(b'abCd', b'') * 1_500_000)


@bomb
def pixels_in_crumbs_png():
    data = zeros(64 * 193)
    crumbs = chunk(b'IDAT', b'') * 1_500_000
    return png(64, 64, crumbs, data=data)


@bomb
def tags_that_overlap_png():
    return png(64, 64, chunk(b'eXIf', exif_tags(1900, 9_000_000, 10_000_000)))


@maker
def tags_in_a_text_png():
    profile = b'exif\n8\n\n' + (b'Exif\0\0' + exif_tags(1900, 400_000, 420_000)).hex().encode()
    return png(64, 64, chunk(b'zTXt', b'Raw profile type exif\0\0' + zlib.compress(b'\n' + profile)))


@bomb
def largest_canvas_webp():
    return webp(16383, 16383)


@bomb
def large_canvas_webp():
    return webp(9_999, 9_999)


@maker
def canvas_that_passes_webp():
    return webp(5_000, 5_000)


@bomb
def canvas_around_little_webp():
    return webp_canvas(16_000, 16_000)


@maker
def cut_off_webp():
    return webp(5_000, 5_000)[:24]


@maker
def raw_and_empty_tif():
    return tiff(9_999, 9_999)


@bomb
def one_strip_of_deflate_tif():
    return tiff(9_999, 9_999, 8, data=zeros(9_999 * 9_999 * 3))


@maker
def one_strip_that_passes_tif():
    return tiff(8_000, 8_000, 8, data=zeros(8_000 * 8_000 * 3))


@bomb
def sixteen_bits_of_deflate_tif():
    return tiff(9_999, 9_999, 8, samples=1, bits=16, data=zeros(9_999 * 9_999 * 2))


@bomb
def one_strip_of_lzw_tif():
    return tiff(9_999, 9_999, 5, data=b'\x80\0\x40' * 100)


@bomb
def one_strip_of_packbits_tif():
    return tiff(9_999, 9_999, 32773, data=b'\x81\0' * 2_343_000)


@maker
def many_bytes_a_pixel_tif():
    return tiff(5_000, 5_000, 8, samples=1, bits=64, data=zeros(100))


@bomb
def scans_in_a_strip_tif():
    return tiff(4_000, 3_000, 7, data=jpeg_scans(4_000, 3_000, 90), extra={262: (3, 6)})


@maker
def lzma_tif():
    return tiff(4_000, 3_000, 34925, data=bytes(1000))


@bomb
def strips_that_overlap_tif():
    return tiff(4_000, 60_000, 8, data=bytes(10_000_000), rows=1, strips=60_000)


@bomb
def strips_without_end_tif():
    return tiff(100, 60_000, 1, data=bytes(300), rows=1, strips=3_000_000, counts=300)


@bomb
def one_huge_tile_tif():
    return tiff(640, 480, 8, data=zeros(1000), extra={322: (4, 60_000), 323: (4, 60_000), 324: (4, 8), 325: (4, 900)})


@bomb
def tags_that_overlap_tif():
    return exif_tags(60_000, 9_000_000, 10_000_000)


@maker
def directory_that_goes_round_tif():
    return exif_loop()


@maker
def a_long_chain_of_directories_tif():
    first = stored(Image.new('RGB', (64, 64)), 'TIFF')
    at, chain = len(first) + len(first) % 2, b''
    for i in range(50_000):
        chain += struct.pack('<H', 1) + struct.pack('<HHLL', 254, 4, 1, 0) + struct.pack('<L', at + 18 * (i + 1))
    where = struct.unpack_from('<L', first, 4)[0]
    many = struct.unpack_from('<H', first, where)[0]
    ahead = where + 2 + 12 * many
    return (first[:ahead] + struct.pack('<L', at) + first[ahead + 4 :]).ljust(at, b'\0') + chain


@maker
def no_pixels_tif():
    return tiff(0, 0)


@bomb
def largest_canvas_gif():
    return gif(65_535, 65_535, gif_frame(1, 1))


@maker
def large_canvas_gif():
    return gif(9_999, 9_999, gif_frame(9_999, 9_999))


@maker
def canvas_that_passes_gif():
    return stored(Image.new('P', (7_000, 7_000)), 'GIF')


@maker
def canvas_that_is_disposed_of_gif():
    return gif(7_000, 7_000, b'!\xf9\4\x09\0\0\0\0' + gif_frame(7_000, 7_000))


@bomb
def frame_beyond_the_canvas_gif():
    return gif(10, 10, b'!\xf9\4\x09\0\0\0\0' + gif_frame(13_000, 13_000))


@maker
def thousands_of_frames_gif():
    return gif(3_000, 3_000, gif_frame(3_000, 3_000) * 20_000)


@bomb
def comment_without_end_gif():
    return gif(64, 64, b'!\xfe' + (b'\xff' + b'a' * 255) * 60_000 + b'\0' + gif_frame(64, 64))


@bomb
def data_in_crumbs_gif():
    return gif(64, 64, gif_frame(64, 64, b'\2' + b'\1\0' * 8_000_000 + b'\0') + gif_frame(64, 64))


@bomb
def rubbish_without_end_gif():
    return gif(64, 64, b'\1' * 20_000_000 + gif_frame(64, 64))


@maker
def raw_and_empty_bmp():
    return bmp(9_999, 9_999, b'', bits=24)


@bomb
def lines_of_one_pixel_bmp():
    return bmp(60_000, 1_600, b'\1\0\0\0' * 1_600, compression=1)


@bomb
def runs_of_one_pixel_bmp():
    return bmp(3_000, 3_000, b'\1\0' * 9_000_000, compression=1)


@maker
def no_pixels_bmp():
    return bmp(0, 0, b'')


@maker
def raw_and_empty_ppm():
    return b'P6 9999 9999 255\n'


@bomb
def odd_depth_ppm():
    return b'P6 5000 5000 200\n' + bytes(75_000_000)


@bomb
def numbers_as_text_ppm():
    return b'P3 5000 5000 255\n' + b'1 ' * 20_000_000


@bomb
def comment_without_end_ppm():
    return b'P6 #' + b'a' * 20_000_000 + b'\n64 64 255\n' + bytes(64 * 64 * 3)


@bomb
def more_than_can_be_ppm():
    return b'P6 999999999 999999999 255\n'


@bomb
def large_canvas_avif():
    return stored(Image.new('RGB', (7_000, 7_000)), 'AVIF', speed=10)


@maker
def canvas_that_passes_avif():
    return stored(Image.new('RGB', (5_000, 5_000)), 'AVIF', speed=10)


def hostile_images(suffix=''):
    "Names of photos, what makes their bytes, and whether they are bombs; but for what this Pillow can't write."
    Image.init()
    for name, make in MAKERS.items():
        if name.endswith(suffix) and not (name.endswith('avif') and 'AVIF' not in Image.SAVE):
            yield '.'.join(name.rsplit('_', 1)), make, name in BOMBS
