/* Keeps the numbers that are greater than every number before them, those that it looks back on included. */
#include "smartmodule.h"

#define LOOK_BACK_FAILED (-99)

static u64 greatest;

EXPORT("look_back") i32 look_back(const u8 *input, u32 length, i32 version) {
    struct call call;
    struct record record;
    u64 value;
    i32 status = begin(&call, input, length, version);
    if (status)
        return status;
    while (next(&call, &record)) {
        if (!number(record.value, &value)) {
            u8 *output = heap_end;
            put_string(TEXT("the value is no number"));
            put_integer((u64)record.offset_delta, 8);
            put_key(record.key);
            put_data(record.value);
            copy_records(output, (u32)(heap_end - output));
            return LOOK_BACK_FAILED;
        }
        if (value > greatest)
            greatest = value;
    }
    return 0;
}

EXPORT("filter") i32 filter(const u8 *input, u32 length, i32 version) {
    struct call call;
    struct record record;
    u64 value;
    i32 status = begin(&call, input, length, version);
    if (status)
        return status;
    while (next(&call, &record)) {
        if (!number(record.value, &value) || value <= greatest)
            continue;
        greatest = value;
        emit(&call, &record);
    }
    return finish(&call);
}
