/* Adds up: every record becomes the sum of all numbers so far, the accumulator included. */
#include "smartmodule.h"

EXPORT("aggregate") i32 aggregate(const u8 *input, u32 length, i32 version) {
    struct call call;
    struct record record;
    u64 sum = 0, value;
    u8 space[20];
    i32 status = begin(&call, input, length, version);
    if (status)
        return status;
    struct bytes accumulator = read_bytes(&call.input, read_integer(&call.input, 4));
    if (call.input.bad)
        return BAD_INPUT;
    number(accumulator, &sum); /* empty at first: 0 */
    while (next(&call, &record)) {
        if (!number(record.value, &value)) {
            i32 count = fail(&call, &record, AGGREGATE, TEXT("the value is no number"));
            struct bytes text = digits(sum, space);
            put_integer(text.length, 4);
            put_bytes(text);
            hand_over(&call);
            return count;
        }
        sum += value;
        record.value = digits(sum, space);
        emit(&call, &record);
    }
    if (call.records.bad)
        return BAD_RECORDS;
    close_records(&call);
    put_integer(0, 1); /* no error */
    struct bytes text = digits(sum, space);
    put_integer(text.length, 4);
    put_bytes(text);
    return hand_over(&call);
}
