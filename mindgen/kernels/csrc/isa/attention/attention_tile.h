// Attention of a tile of queries to the keys of a chunk. Few rows and many take all sums in the same order.
#pragma once
#include "attention_few_rows.h"

namespace mindgen::MG_ISA {
namespace {

// Where neighbouring keys of a sequence are, as offsets into key and value.
template <int64_t SIZE>
struct KeyOffsets {
  int64_t at[SIZE];  // the rest are valid, too, for fetching ahead
  int64_t count;
};

template <int64_t SIZE>
static void find_keys(const AttentionCall& call, const AttentionTile& tile, int64_t kv_head, int64_t first_key,
                      int64_t end_key, KeyOffsets<SIZE>& keys) {
  const int64_t width = call.num_kv_heads * call.head_size;
  keys.count = larger(0, end_key - first_key);
  for (int64_t i = 0; i < keys.count;) {
    const int64_t key = first_key + i, in_block = key % call.block_size;
    const int64_t end = smaller(i + call.block_size - in_block, keys.count);
    const int64_t row = tile.block_table ? tile.block_table[key / call.block_size] * call.block_size + in_block
                                         : tile.first_key_row + key;
    int64_t offset = row * width + kv_head * call.head_size;
    for (; i < end; offset += width) keys.at[i++] = offset;
  }
  for (int64_t i = keys.count; i < SIZE; i++) keys.at[i] = 0;
}

template <class T, int64_t SIZE>
static inline void prefetch_keys(const T* from, const KeyOffsets<SIZE>& keys, int64_t first, int64_t count,
                                 int64_t head_size) {
  for (int64_t i = first; i < smaller(first + count, keys.count); i++) prefetch(from + keys.at[i], head_size);
}

// One thread's work on a tile, whose rows are (query, query head of the group) pairs, for one key/value head or, to
// read every block in one go, for all: the rows of as many heads as a band holds, then, from the next multiple of
// kBandRows on, those of the next heads.
template <class T, class Block>
class TileAttention {
  using Units = typename Block::Units;
  using Keys = KeyOffsets<kTileKeys>;
  static constexpr int64_t kRowStep = Block::kRows > kWidth ? Block::kRows : kWidth;
  static constexpr bool kPacks = Block::kPacks;
  static constexpr int64_t kTileUnits = kTileKeys / Units::kElements, kPanelUnits = kTileUnits * kWidth;
  static constexpr int64_t kVectorElements = kWidth * Units::kElements;
  static_assert(kBandRows % kRowStep == 0 && kTileUnits % kWidth == 0);

  const AttentionCall& call_;
  const AttentionTile& tile_;
  const int64_t first_head_, num_heads_;  // of the keys and values
  const int64_t group_, head_rows_, band_heads_, rows_, head_units_, query_units_, head_panels_;
  uint32_t* query_;    // (rows, query_units)
  uint32_t* keys_;     // (kTileKeys / kWidth, query_units, kWidth)
  uint32_t* values_;   // (head_panels, kTileUnits, kWidth)
  uint32_t* weights_;  // (kBandRows, kTileUnits)
  float* scores_;      // (kTileKeys / kWidth, kBandRows, kWidth)
  float* softmaxes_;   // two

 public:
  static constexpr bool kAllHeads = !kPacks;
  static int64_t padded_rows(int64_t rows) { return round_up(rows, kRowStep); }

  TileAttention(const AttentionCall& call, const AttentionTile& tile, int64_t kv_head)
      : call_(call), tile_(tile), first_head_(kAllHeads ? 0 : kv_head), num_heads_(kAllHeads ? call.num_kv_heads : 1),
        group_(call.num_query_heads / call.num_kv_heads),
        head_rows_(tile.num_queries * group_), band_heads_(larger(1, kBandRows / head_rows_)),
        rows_(first_row_of(num_heads_ - 1) + head_rows_), head_units_(ceil_divide(call.head_size, Units::kElements)),
        query_units_(round_up(head_units_, kWidth)), head_panels_(ceil_divide(call.head_size, kWidth)) {
    const int64_t queries = padded_rows(rows_) * query_units_;
    const int64_t keys = kPacks ? kTileKeys * query_units_ : 0;
    const int64_t values = kPacks ? round_up(head_panels_, Units::kElements) * kPanelUnits : 0;
    const int64_t weights = kBandRows * kTileUnits;
    const int64_t scores = kTileKeys * kBandRows;
    const int64_t words = queries + keys + values + weights + scores + 2 * num_floats();
    query_ = (uint32_t*)scratch(kScratchInputs, words * sizeof(uint32_t));
    keys_ = query_ + queries;
    values_ = keys_ + keys;
    weights_ = values_ + values;
    scores_ = (float*)(weights_ + weights);
    softmaxes_ = scores_ + scores;
    pack_query();
    if (kPacks) memset(weights_, 0, weights * sizeof(uint32_t));  // those of rows that only fill up a block
  }

  int64_t num_floats() const { return Softmax::num_floats(padded_rows(rows_), head_panels_); }
  float* own_softmax(int i) const { return softmaxes_ + i * num_floats(); }

  void attend(int64_t chunk, float* memory) const {
    const Softmax softmax = softmax_at(memory);
    const int64_t end_key = smaller((chunk + 1) * kChunkKeys, tile_.num_keys);
    Keys offsets[2], *keys = offsets, *next_keys = offsets + 1;
    int64_t first_key = chunk * kChunkKeys;
    find_keys(call_, tile_, first_head_, first_key, smaller(first_key + kTileKeys, end_key), *keys);
    if (!kPacks) prefetch_keys((const T*)call_.key, *keys, 0, keys->count, call_.head_size);
    softmax.clear();
    for (; keys->count > 0; std::swap(keys, next_keys), first_key += kTileKeys) {
      const int64_t next = first_key + kTileKeys;
      find_keys(call_, tile_, first_head_, next, smaller(next + kTileKeys, end_key), *next_keys);
      if constexpr (kPacks) {
        attend_packed(first_key, *keys, *next_keys, softmax);
      } else {
        for (int64_t head = 0; head < num_heads_; head += band_heads_) {
          attend_directly(head, smaller(band_heads_, num_heads_ - head), first_key, *keys, *next_keys, softmax);
        }
      }
    }
  }

  void merge_softmaxes(float* result, float* addition) const {
    merge(softmax_at(result), softmax_at(addition), rows_);
  }

  void store_output(float* memory) const {
    const Softmax softmax = softmax_at(memory);
    for_each_row([&](int64_t row, int64_t offset) {
      T* to = (T*)call_.y + offset;
      for (int64_t panel = 0; panel < head_panels_; panel++) {
        const int64_t d = panel * kWidth;
        store_upto(to + d, load(softmax.sums_at(panel, row)) / softmax.denominators[row], call_.head_size - d);
      }
    });
  }

 private:
  Softmax softmax_at(float* memory) const { return Softmax::at(memory, padded_rows(rows_), head_panels_); }

  int64_t first_row_of(int64_t head) const {
    return head / band_heads_ * kBandRows + head % band_heads_ * head_rows_;
  }

  // body(row, its offset into query and y)
  template <class Body>
  void for_each_row(const Body& body) const {
    for (int64_t head = 0; head < num_heads_; head++) {
      const int64_t first_row = first_row_of(head), first_query_head = (first_head_ + head) * group_;
      for (int64_t query = 0, i = 0; query < tile_.num_queries; query++) {
        const int64_t query_row = (tile_.first_query + query) * call_.num_query_heads + first_query_head;
        for (int64_t g = 0; g < group_; g++, i++) body(first_row + i, (query_row + g) * call_.head_size);
      }
    }
  }

  void pack_query() const {
    for_each_row([&](int64_t row, int64_t offset) {
      const T* from = (const T*)call_.query + offset;
      for (int64_t u = 0; u < query_units_; u += kWidth) {
        const int64_t d = u * Units::kElements;
        const uintv units = Units::load_along_depth(from + d, call_.head_size - d);
        store_units(query_ + row * query_units_ + u, units);
      }
    });
    if (!kPacks) return;
    for (int64_t row = rows_; row < padded_rows(rows_); row++) {
      for (int64_t u = 0; u < query_units_; u += kWidth) {
        store_units(query_ + row * query_units_ + u, uintv{});
      }
    }
  }

  float factor() const { return call_.scale * 1.44269504f; }  // log2(e): scores are taken in powers of two

  // The heads of a band, from `head` on. Meanwhile fetches what follows: the next head's keys, the values, and at the
  // end the next keys.
  void attend_directly(int64_t head, int64_t heads, int64_t first_key, const Keys& keys, const Keys& next_keys,
                       const Softmax& softmax) const {
    const Band band = make_band(first_row_of(head), heads * head_rows_, first_key, keys.count);
    if (band.end_key == 0) return;
    const int64_t at_head = head * call_.head_size;
    const T *key = (const T*)call_.key + at_head, *value = (const T*)call_.value + at_head;
    for (int64_t i = 0; i < heads; i++) {
      const T *head_key = key + i * call_.head_size, *ahead = i + 1 < heads ? head_key + call_.head_size : value;
      for (int64_t first = 0; first < band.end_key; first += kWidth) {
        Block::score(head_rows_, query_ + (band.first_row + i * head_rows_) * query_units_, query_units_, head_key,
                     ahead, keys.at + first, keys.count - first, call_.head_size,
                     scores_ + first * kBandRows + i * head_rows_ * kWidth);
      }
    }
    add_scores<Block>(softmax, band, factor(), scores_, weights_);
    const bool more_heads = head + heads < num_heads_;
    const T* next_key = more_heads ? key + heads * call_.head_size : (const T*)call_.key;
    for (int64_t i = 0; i < heads; i++) {
      const T* head_value = value + i * call_.head_size;
      const bool is_last = i + 1 == heads;
      Block::add_values(head_rows_, weights_ + i * head_rows_ * kTileUnits, kTileUnits, head_value, keys.at,
                        is_last ? next_key : head_value + call_.head_size,
                        is_last && !more_heads ? next_keys.at : keys.at, band.end_key, call_.head_size,
                        softmax.sums_at(0, band.first_row + i * head_rows_), softmax.rows * kWidth);
    }
  }

  void attend_packed(int64_t first_key, const Keys& keys, const Keys& next_keys,
                     const Softmax& softmax) const {
    pack_keys(keys, next_keys);
    for (int64_t row = 0; row < rows_; row += kBandRows) {
      const Band band = make_band(row, smaller(kBandRows, rows_ - row), first_key, keys.count);
      score(band, softmax);
      if (row == 0) pack_values(keys, next_keys);
      add_values(band, softmax);
    }
  }

  void pack_keys(const Keys& keys, const Keys& next_keys) const {
    const T* key = (const T*)call_.key;
    for (int64_t first = 0; first < keys.count; first += kWidth) {
      prefetch_keys(key, next_keys, first, kWidth, call_.head_size);
      for (int64_t u = 0; u < query_units_; u += kWidth) {
        const int64_t d = u * Units::kElements;
        uintv v[kWidth];
        load_keys<Units>(key + d, keys.at + first, keys.count - first, call_.head_size - d, v);
        Block::pack_keys(v);
        uint32_t* to = keys_ + first * query_units_ + u * kWidth;
#pragma GCC unroll 16
        for (int64_t i = 0; i < kWidth; i++) store_units(to + i * kWidth, v[i]);
      }
    }
  }

  void pack_values(const Keys& keys, const Keys& next_keys) const {
    const T* value = (const T*)call_.value;
    const int64_t head_size = call_.head_size;
    const int64_t units = ceil_divide(keys.count, Units::kElements);
    for (int64_t u = 0; u < units; u++) {
      const int64_t key = u * Units::kElements, left = keys.count - key;
      prefetch_keys(value, next_keys, key, Units::kElements, head_size);
      const T* from = value + keys.at[key];
      const int64_t step = left > 1 ? keys.at[key + 1] - keys.at[key] : 0;
      uint32_t* to = values_ + u * kWidth;
      for (int64_t d = 0; d < head_size; d += kVectorElements, to += Units::kElements * kPanelUnits) {
        uintv v[Units::kElements];
        if (head_size - d >= kVectorElements) {
          Units::load_unit(from + d, kVectorElements, step, left, v);
        } else {
          Units::load_unit(from + d, head_size - d, step, left, v);
        }
        for (int i = 0; i < Units::kElements; i++) store_units(to + i * kPanelUnits, v[i]);
      }
    }
    // The rest of a vector of weights is zero, but not times infinity.
    const int64_t rest = round_up(units, kWidth) - units;
    for (int64_t panel = 0; panel < head_panels_; panel++) {
      memset(values_ + panel * kPanelUnits + units * kWidth, 0, rest * kWidth * sizeof(uint32_t));
    }
  }

  // The rows from first_row on, and what they see of the keys at hand.
  Band make_band(int64_t first_row, int64_t rows, int64_t first_key, int64_t count) const {
    Band band;
    band.first_row = first_row, band.rows = rows;
    const int64_t first_visible = tile_.num_keys - tile_.num_queries + 1 - first_key;  // keys of a head's first row
    const int64_t first = kAllHeads ? 0 : first_row;                                   // of its head's rows
    const bool all_visible = first_visible + first / group_ >= count;
    for (int64_t i = 0; i < band.rows; i++) {
      band.visible[i] = all_visible ? count : smaller(count, first_visible + (first + i) % head_rows_ / group_);
    }
    band.end_key = larger(0, band.visible[band.rows - 1]);
    return band;
  }

  void score(const Band& band, const Softmax& softmax) const {
    if (band.end_key == 0) return;
    Block::score({query_ + band.first_row * query_units_, query_units_, round_up(band.rows, Block::kRows), keys_,
                  query_units_ * kWidth, round_up(head_units_, 2), scores_, kBandRows * kWidth, false},
                 ceil_divide(band.end_key, kWidth));
    add_scores<Block>(softmax, band, factor(), scores_, weights_);
  }

  void add_values(const Band& band, const Softmax& softmax) const {
    if (band.end_key == 0) return;
    Block::multiply({weights_, kTileUnits, round_up(band.rows, Block::kRows), values_, kPanelUnits,
                     ceil_divide(band.end_key, Units::kElements), softmax.sums_at(0, band.first_row),
                     softmax.rows * kWidth, true},
                    head_panels_);
  }
};

}  // namespace
}  // namespace mindgen::MG_ISA
