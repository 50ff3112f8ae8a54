"""What all networks have around their layers: embedding, final norm, head, and the rows whose logits are asked for."""

from mindspore import Tensor, nn, ops

from mindgen.kernels.row_memory import RowMemory
from mindgen.layers.adapted import AdaptedLayer, AdapterRows
from mindgen.layers.attention import StepTensors
from mindgen.layers.causal_mask import NoMask, PagedMask
from mindgen.layers.embedding import Embedding
from mindgen.layers.linear import Linear
from mindgen.layers.parameters import NotedLayouts, WeightSource
from mindgen.layers.spec import NetworkSpec
from mindgen.layers.step_inputs import PLACES
from mindgen.parallel.layout import WHOLE, Axis, Slice, TensorLayout
from mindgen.parallel.stage import ONLY_STAGE
from mindgen.weights.architecture import architectures
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.network_names import tied_by_embedding
from mindgen.weights.tensor_check import find_unknown, refuse_unknown
from mindgen.weights.tensor_names import EMBEDDING, HEAD

_INPUTS, _POSITIONS, _OUTPUT_ROWS = PLACES.inputs, PLACES.positions, PLACES.output_rows


class Decoder(nn.Cell):
    """Embedding, layers and final norm, or what of these a pipeline stage has.

    Args:
        layers: the stage's.
        norm: the final one, which is the last stage's.
        norm_name: of its tensors, as in Hugging Face.

    Attributes:
        mask: of the layers' PagedAttention.
    """

    def __init__(self, spec: NetworkSpec, layers: list[nn.Cell], norm: nn.Cell | None, norm_name: str) -> None:
        super().__init__()
        sizes = (spec.config.vocab_size, spec.config.hidden_size)
        self.embed_tokens = Embedding(EMBEDDING, *sizes, spec.dtype, spec.shard) if spec.stage.is_first else None
        self.layers = nn.CellList(layers)
        self.norm = norm
        self.norm_name = norm_name
        self.mask = PagedMask(spec.num_positions, spec.dtype) if spec.shard.sliced_by_compiler else NoMask()

    def load(self, source: WeightSource) -> None:
        if self.embed_tokens is not None:
            self.embed_tokens.load(source)
        for layer in self.layers:
            layer.load(source)
        if self.norm is not None:
            self.norm.load(source, self.norm_name)

    def embed(self, step: StepTensors, adapter_rows: AdapterRows, table_rows: tuple[Tensor, ...]) -> Tensor:
        """The hidden states (T, H) that the layers begin with."""
        if self.embed_tokens is None:
            return step[_INPUTS]
        return self.embed_tokens(step[_INPUTS], adapter_rows, table_rows)


class CausalLm(nn.Cell):
    """Token ids of a batch to float32 logits (R, V) of the rows that are asked for.

    The ranks split the vocabulary: each gives the logits of its part, padded with zeros. Of several pipeline stages
    all but the first take hidden states (T, H) for token ids, and all but the last give hidden states.

    Args:
        model: gives the hidden states (T, H); its layers have `linears()` and `self_attn`.
    """

    def __init__(self, spec: NetworkSpec, model: Decoder) -> None:
        super().__init__()
        config, shard = spec.config, spec.shard
        self.config = config
        self.dtype = spec.dtype
        self.is_whole = spec.stage == ONLY_STAGE
        self.model = model
        self.tied = config.tie_word_embeddings
        head = spec.linear(Axis(config.hidden_size), {HEAD: shard.split(config.vocab_size)})
        self.lm_head = Linear(head, output_dtype="float32") if spec.stage.is_last else None
        self.is_shared = self.tied and shard.sliced_by_compiler
        if self.is_shared and self.lm_head is not None and model.embed_tokens is not None:
            self.lm_head.method.weight = model.embed_tokens.weight  # or a card would hold it twice
        self.gather = ops.Gather().shard(((1, 1), (1,)))

    def linears(self) -> list[Linear]:
        """Every linear of the layers."""
        return [linear for layer in self.model.layers for linear in layer.linears()]

    def tables(self) -> tuple[AdaptedLayer | None, AdaptedLayer | None]:
        """Embedding and head, which adapters can target as well as the linears; None in other stages than theirs."""
        return self.model.embed_tokens, self.lm_head

    def vocabulary(self) -> Slice:
        """The tokens of which this process has the embedding."""
        return Slice(0, 0, 0) if self.model.embed_tokens is None else self.model.embed_tokens.vocabulary

    def state_layouts(self) -> dict[str, TensorLayout]:
        """Of the caches and the adapters' weights, by the names of MindSpore's parameters."""
        layouts: dict[str, TensorLayout] = {}
        for layer in self.model.layers:
            layouts |= layer.self_attn.cache_layouts()
        heads = [] if self.lm_head is None else [self.lm_head]
        for linear in [*self.linears(), *heads]:
            layouts |= linear.state_layouts()
        return layouts

    def caches(self) -> list[RowMemory]:
        """The keys and the values of each layer (num_blocks, ...), in the memory where they are."""
        return [cache for layer in self.model.layers for cache in layer.self_attn.cache_memory]

    def translate(self, tensors: dict[str, MappedTensor]) -> dict[str, MappedTensor]:
        """A checkpoint's tensors under the names, and in the shapes, that the layers have them."""
        tensors = architectures()[self.config.architecture].translate(tensors, self.config)
        return tied_by_embedding(tensors) if self.tied else tensors

    def load(self, source: WeightSource) -> list[str]:
        """Takes the weights; returns the names of those that this stage has no use for.

        Raises:
            ModelError: one is missing or of another shape, or no stage has a use for it; nothing is taken then.
        """
        noted = NotedLayouts(self.dtype, WHOLE)
        self._take(noted)
        source.require(noted.layouts)
        unknown = find_unknown(source.remaining(), noted.layouts, self.tied)
        if self.is_whole:
            refuse_unknown(self.config.architecture, unknown)
        self._take(source)
        return unknown

    def _take(self, source: WeightSource) -> None:
        self.model.load(source)
        if self.lm_head is not None:
            self._load_head(self.lm_head, source)

    def _load_head(self, head: Linear, source: WeightSource) -> None:
        if not self.tied:
            head.load(source)
        elif self.model.embed_tokens is None:
            head.method.load(source, f"{EMBEDDING}.weight")
        elif not self.is_shared:
            head.method.tie(source, f"{EMBEDDING}.weight")

    def construct(
        self,
        step: StepTensors,
        adapter_rows: AdapterRows,
        output_adapter_rows: AdapterRows,
        table_rows: tuple[Tensor, ...],
        whole_prompts: bool,
    ) -> Tensor:
        """output_adapter_rows: the same of the rows asked for, for the head; table_rows: for the embedding."""
        hidden = self.model(step, adapter_rows, table_rows, whole_prompts)
        if self.lm_head is None:
            return hidden
        return self.lm_head(self.gather(hidden, step[_OUTPUT_ROWS], 0), output_adapter_rows)  # (R, H) -> (R, V)
