/* What a SmartModule in C needs: the encodings of the platform and its calling convention, nothing else.
 *
 * A module exports `memory`, `alloc`, `dealloc` and one of `filter`, `map`, `array_map`, `filter_map`, `aggregate`, each
 * called with the place, the length and the version of its input; it returns how many records it puts out, or a negative
 * status. Its output it hands over by calling `copy_records`. Optionally it exports `init` and `look_back`.
 *
 * Memory: the host calls `alloc` once at the beginning of every call, so that is where the heap starts anew; what has to
 * stay from one call to the next is static. Only version 23 of the encodings and later ones are read.
 */
#ifndef SMARTMODULE_H
#define SMARTMODULE_H

typedef unsigned char u8;
typedef unsigned int u32;
typedef int i32;
typedef long long i64;
typedef unsigned long long u64;

#define EXPORT(name) __attribute__((export_name(name)))
#define PAGE 65536u

/* Statuses of the platform. */
#define BAD_INPUT (-11)
#define BAD_RECORDS (-22)
#define INIT_FAILED (-2)

/* Kinds of modules, as an error names them. */
enum kind { FILTER = 0, MAP = 1, ARRAY_MAP = 2, AGGREGATE = 3, FILTER_MAP = 4 };

__attribute__((import_module("env"), import_name("copy_records"))) void copy_records(const void *output, u32 length);

extern u8 __heap_base;
static u8 *heap_end;

/* Memory until the end of the call; the module traps if it gets none. */
static u8 *take(u32 length) {
    u8 *start = heap_end;
    u32 have = __builtin_wasm_memory_size(0) * PAGE, need = (u32)(start + length);
    if (need > have && __builtin_wasm_memory_grow(0, (need - have + PAGE - 1) / PAGE) == (u32)-1)
        __builtin_trap();
    heap_end = start + length;
    return start;
}

EXPORT("alloc") void *alloc(u32 length) {
    heap_end = &__heap_base;
    return take(length);
}

EXPORT("dealloc") void dealloc(void *start, u32 length) { (void)start, (void)length; }

/* Bytes that belong to somebody else; `at` is null if there are none (a record without a key). */
struct bytes {
    const u8 *at;
    u32 length;
};

struct record {
    i64 timestamp_delta, offset_delta;
    struct bytes key, value;
};

/* Reading: after the first thing that cannot be read, everything reads as zero and `bad` is set. */
struct reader {
    const u8 *at, *end;
    i32 bad;
};

static struct bytes read_bytes(struct reader *reader, u64 length) {
    struct bytes bytes = {reader->at, 0};
    if (reader->bad || length > (u64)(reader->end - reader->at)) {
        reader->bad = 1;
        return bytes;
    }
    bytes.length = (u32)length;
    reader->at += length;
    return bytes;
}

static u64 read_integer(struct reader *reader, u32 size) {
    struct bytes bytes = read_bytes(reader, size);
    u64 value = 0;
    for (u32 i = 0; i < bytes.length; i++)
        value = value << 8 | bytes.at[i];
    return value;
}

static i64 read_varint(struct reader *reader) {
    u64 value = 0;
    for (u32 shift = 0; shift < 64; shift += 7) {
        u64 byte = read_integer(reader, 1);
        value |= (byte & 0x7f) << shift;
        if (byte < 0x80)
            return (i64)(value >> 1) ^ -(i64)(value & 1);
    }
    reader->bad = 1;
    return 0;
}

static struct bytes read_data(struct reader *reader) {
    i64 length = read_varint(reader);
    return read_bytes(reader, length < 0 ? ~0ull : (u64)length);
}

static struct bytes read_string(struct reader *reader) { return read_bytes(reader, read_integer(reader, 2)); }

/* Writing: always at the end of the heap. */
static void put_bytes(struct bytes bytes) { __builtin_memcpy(take(bytes.length), bytes.at, bytes.length); }

static void put_integer(u64 value, u32 size) {
    u8 *at = take(size);
    for (u32 i = 0; i < size; i++)
        at[i] = (u8)(value >> 8 * (size - 1 - i));
}

static void put_varint(i64 value) {
    u64 rest = (u64)value << 1 ^ (u64)(value >> 63);
    for (; rest >= 0x80; rest >>= 7)
        put_integer((rest & 0x7f) | 0x80, 1);
    put_integer(rest, 1);
}

static u32 varint_size(i64 value) {
    u32 size = 1;
    for (u64 rest = (u64)value << 1 ^ (u64)(value >> 63); rest >= 0x80; rest >>= 7)
        size++;
    return size;
}

static void put_data(struct bytes bytes) {
    put_varint(bytes.length);
    put_bytes(bytes);
}

static void put_string(struct bytes bytes) {
    put_integer(bytes.length, 2);
    put_bytes(bytes);
}

static void put_key(struct bytes key) {
    put_integer(key.at != 0, 1);
    if (key.at)
        put_data(key);
}

/* One call: the records that come in, and the output as far as it is written. */
struct call {
    struct reader input, records;
    u32 left;
    u8 *output;
    u32 count;
};

/* Opens the input; 0, or the status to return. */
static i32 begin(struct call *call, const u8 *input, u32 length, i32 version) {
    if (version < 23)
        return BAD_INPUT;
    call->input = (struct reader){input, input + length, 0};
    read_integer(&call->input, 8); /* base offset */
    struct bytes records = read_bytes(&call->input, read_integer(&call->input, 4));
    read_integer(&call->input, 8); /* base timestamp */
    if (call->input.bad)
        return BAD_INPUT;
    call->records = (struct reader){records.at, records.at + records.length, 0};
    call->left = (u32)read_integer(&call->records, 4);
    call->output = heap_end;
    call->count = 0;
    put_integer(0, 4);
    return call->records.bad ? BAD_RECORDS : 0;
}

/* The next record; 0 at the end, or if what follows is none (then `finish` returns the status). */
static i32 next(struct call *call, struct record *record) {
    if (call->left == 0 || call->records.bad)
        return 0;
    call->left--;
    struct bytes body = read_data(&call->records);
    struct reader reader = {body.at, body.at + body.length, call->records.bad};
    read_integer(&reader, 1); /* attributes */
    record->timestamp_delta = read_varint(&reader);
    record->offset_delta = read_varint(&reader);
    record->key = (struct bytes){0, 0};
    if (read_integer(&reader, 1))
        record->key = read_data(&reader);
    record->value = read_data(&reader);
    call->records.bad = reader.bad;
    return !reader.bad;
}

static void emit(struct call *call, const struct record *record) {
    u32 size = 1 + varint_size(record->timestamp_delta) + varint_size(record->offset_delta) + 1 +
               varint_size(record->value.length) + record->value.length + 1;
    if (record->key.at)
        size += varint_size(record->key.length) + record->key.length;
    put_varint(size);
    put_integer(0, 1);
    put_varint(record->timestamp_delta);
    put_varint(record->offset_delta);
    put_key(record->key);
    put_data(record->value);
    put_varint(0); /* headers */
    call->count++;
}

/* Writes how many records there are, in front of them. */
static void close_records(struct call *call) {
    for (u32 i = 0; i < 4; i++)
        call->output[i] = (u8)(call->count >> 8 * (3 - i));
}

static i32 hand_over(struct call *call) {
    copy_records(call->output, (u32)(heap_end - call->output));
    return (i32)call->count;
}

/* Ends a call that has gone well. */
static inline i32 finish(struct call *call) {
    if (call->records.bad)
        return BAD_RECORDS;
    close_records(call);
    put_integer(0, 1); /* no error */
    return hand_over(call);
}

/* Ends a call with an error that names a record; what was put out before it counts. */
static inline i32 fail(struct call *call, const struct record *record, enum kind kind, struct bytes hint) {
    close_records(call);
    put_integer(1, 1);
    put_string(hint);
    put_integer((u64)record->offset_delta, 8);
    put_integer(kind, 1);
    put_key(record->key);
    put_data(record->value);
    return hand_over(call);
}

#define TEXT(literal) ((struct bytes){(const u8 *)(literal), sizeof(literal) - 1})

static inline i32 equal(struct bytes a, struct bytes b) {
    if (a.length != b.length)
        return 0;
    for (u32 i = 0; i < a.length; i++)
        if (a.at[i] != b.at[i])
            return 0;
    return 1;
}

static inline i32 contains(struct bytes text, struct bytes part) {
    for (u32 i = 0; i + part.length <= text.length; i++)
        if (equal((struct bytes){text.at + i, part.length}, part))
            return 1;
    return 0;
}

/* Decimal digits, nothing else; 0 if the text is something else. */
static inline i32 number(struct bytes text, u64 *value) {
    *value = 0;
    for (u32 i = 0; i < text.length; i++) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return 0;
        *value = *value * 10 + (text.at[i] - '0');
    }
    return text.length > 0;
}

/* The text of a number, in `space` of 20 bytes. */
static inline struct bytes digits(u64 value, u8 *space) {
    u8 *at = space + 20;
    do
        *--at = (u8)('0' + value % 10);
    while (value /= 10);
    return (struct bytes){at, (u32)(space + 20 - at)};
}

/* Looks a parameter up in the input of `init`; its bytes are null if it is not given. */
static inline struct bytes parameter(const u8 *input, u32 length, struct bytes name) {
    struct reader reader = {input, input + length, 0};
    struct bytes found = {0, 0};
    for (u64 left = read_integer(&reader, 2); left > 0 && !reader.bad; left--) {
        struct bytes key = read_string(&reader), value = read_string(&reader);
        if (!reader.bad && equal(key, name))
            found = value;
    }
    return found;
}

/* Ends `init` with an error. */
static inline i32 init_failed(struct bytes hint) {
    u8 *output = heap_end;
    put_string(hint);
    copy_records(output, (u32)(heap_end - output));
    return INIT_FAILED;
}

#endif
