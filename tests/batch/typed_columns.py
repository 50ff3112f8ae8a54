"""A table with a column of each type that Parquet files hold."""

import datetime
import decimal

import pyarrow as pa

_DAY = datetime.date(2024, 2, 29)
_NOON = datetime.datetime(2024, 2, 29, 12, 30, 15, 123456)
_KEYED = pa.struct([("role", pa.string()), ("content", pa.string())])

# Values of three rows, the middle one null but for lists of a fixed size, of which pyarrow reads no nulls.
COLUMNS = {
    "prompt": pa.array(["first", None, "third"]),
    "empty": pa.nulls(3),
    "flag": pa.array([True, None, False]),
    "small": pa.array([-1, None, 127], pa.int8()),
    "huge": pa.array([0, None, 2**64 - 1], pa.uint64()),
    "half": pa.array([0.5, None, 1.5], pa.float16()),
    "single": pa.array([0.1, None, float("inf")], pa.float32()),
    "double": pa.array([0.1, None, float("nan")]),
    "large_text": pa.array(["a", None, "北京"], pa.large_string()),
    "text_view": pa.array(["a", None, "longer than twelve bytes"], pa.string_view()),
    "bytes": pa.array([b"\x00\xff", None, b""]),
    "large_bytes": pa.array([b"\x00\xff", None, b""], pa.large_binary()),
    "fixed_bytes": pa.array([b"abcd", None, b"efgh"], pa.binary(4)),
    "decimal": pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("-0.01")], pa.decimal128(5, 2)),
    "wide_decimal": pa.array([decimal.Decimal(10**40), None, decimal.Decimal(1)], pa.decimal256(50, 0)),
    "day": pa.array([_DAY, None, datetime.date(1, 1, 1)]),
    "time": pa.array([1, None, 86399999999999], pa.time64("ns")),
    "naive": pa.array([_NOON, None, datetime.datetime(1969, 7, 20)], pa.timestamp("us")),
    "zoned": pa.array([_NOON, None, datetime.datetime(1969, 7, 20)], pa.timestamp("us", "Europe/Berlin")),
    "nanoseconds": pa.array([1, None, 1709209815123456789], pa.timestamp("ns", "UTC")),
    "duration": pa.array([1, None, 10**15], pa.duration("ns")),
    "category": pa.DictionaryArray.from_arrays(
        pa.array([1, None, 0], pa.int8()), ["low", "high", "never"], ordered=True
    ),
    "chat": pa.array([[{"role": "user", "content": "hi"}], None, []], pa.list_(_KEYED)),
    "token_ids": pa.array([[1, None], None, []], pa.large_list(pa.int32())),
    "pair": pa.array([[1.0, 2.0], [0.0, 0.0], [3.0, None]], pa.list_(pa.float32(), 2)),
    "struct": pa.array([{"at": _NOON, "of": ["x"]}, None, {"at": None, "of": None}]),
    "map": pa.array([[("a", 1), ("b", None)], None, []], pa.map_(pa.string(), pa.int64())),
    "categories": pa.array([["x", "y"], None, ["x"]], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
    "nothings": pa.array([[None], None, []], pa.list_(pa.null())),
}


def all_types() -> pa.Table:
    """With metadata of a field, and of the whole."""
    fields = [pa.field(name, array.type, metadata={"about": name}) for name, array in COLUMNS.items()]
    return pa.table(list(COLUMNS.values()), schema=pa.schema(fields, metadata={"origin": "a test"}))
