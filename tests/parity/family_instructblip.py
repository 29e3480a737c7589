"""InstructBLIP with a Vicuna decoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from family import BICUBIC, CLIP_MEAN, CLIP_STD, Generative, Sample, load_image_processor, load_tokenizer, setting
from fixture_files import Json, write_json
from tiny_tokenizers import build_bert_tokenizer, build_llama_tokenizer, padded_vocabulary_size, save_tokenizer

QFORMER_TOKENIZER = "qformer_tokenizer"


class InstructBlip(Generative):
    """InstructBLIP: EVA ViT with one qkv matrix, Q-Former that reads the text too, Vicuna decoder."""

    name = "instructblip"
    model_class = "InstructBlipForConditionalGeneration"
    weights_dtype = torch.float32
    eos_token = "</s>"
    image_side, patch_size, num_query_tokens = 24, 6, 5
    picture_sizes = {"image_a.png": (53, 47), "image_b.png": (31, 64)}
    samples = {
        "a": Sample("image_a.png", "What covers the background?", "a soft gradient"),
        "b": Sample("image_b.png", "Describe the animals on the beach, or say that there are none.", "there are none"),
    }
    probes = {
        "vision_last_hidden": "vision_model",
        "qformer_last_hidden": "qformer",
        "projected": "language_projection",
        "decoder_layer_0": "language_model.model.layers.0",
        "final_norm": "language_model.model.norm",
    }

    def prompt(self, question: str) -> str:
        return question  # no frame: the processor puts the query tokens in front

    def tokenizer_folders(self, checkpoint: Path) -> dict[str, Path]:
        return {"tokenizer": checkpoint, QFORMER_TOKENIZER: checkpoint / QFORMER_TOKENIZER}

    def write_tokenizer(self, checkpoint: Path) -> None:
        # As converted from the original: BOS, EOS and UNK are all "</s>".
        tokenizer = build_llama_tokenizer(added=["[PAD]", "<image>"], bos=self.eos_token, num_merges=140)
        save_tokenizer(tokenizer, checkpoint, {
            "unk_token": self.eos_token, "bos_token": self.eos_token, "eos_token": self.eos_token,
            "pad_token": "[PAD]", "padding_side": "left", "truncation_side": "left",
        })
        save_tokenizer(build_bert_tokenizer(["[DEC]"]), checkpoint / QFORMER_TOKENIZER, {
            "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]",
            "mask_token": "[MASK]", "bos_token": "[DEC]", "padding_side": "right", "truncation_side": "left",
        })

    def config(self, checkpoint: Path) -> Json:
        tokenizer, qformer = load_tokenizer(checkpoint), load_tokenizer(checkpoint / QFORMER_TOKENIZER)
        return {
            "architectures": [self.model_class], "image_token_index": tokenizer.token_to_id("<image>"),
            "initializer_factor": 1.0, "initializer_range": 0.02, "model_type": "instructblip",
            "num_query_tokens": self.num_query_tokens,
            "qformer_config": {
                "model_type": "instructblip_qformer", "cross_attention_frequency": 2, "encoder_hidden_size": 40,
                "hidden_act": "gelu", "hidden_size": 32, "intermediate_size": 56, "layer_norm_eps": 1e-12,
                "max_position_embeddings": 64, "num_attention_heads": 4, "num_hidden_layers": 3, "pad_token_id": 0,
                "position_embedding_type": "absolute", "vocab_size": qformer.get_vocab_size(),
            },
            "text_config": {
                "architectures": ["LlamaForCausalLM"], "model_type": "llama", "bos_token_id": 1, "eos_token_id": 2,
                "hidden_size": 48, "intermediate_size": 80, "max_position_embeddings": 512, "num_attention_heads": 3,
                "num_hidden_layers": 3, "pad_token_id": 0, "rms_norm_eps": 1e-06, "torch_dtype": "float32",
                "vocab_size": padded_vocabulary_size(tokenizer),
            },
            "tie_word_embeddings": False, "torch_dtype": "float32", "transformers_version": "4.47.0.dev0",
            "use_decoder_only_language_model": True,
            "vision_config": {
                "model_type": "instructblip_vision_model", "hidden_act": "gelu", "hidden_size": 40,
                "image_size": self.image_side, "intermediate_size": 72, "layer_norm_eps": 1e-06,
                "num_attention_heads": 4, "num_hidden_layers": 3, "patch_size": self.patch_size, "qkv_bias": True,
            },
        }

    def write_processor_files(self, checkpoint: Path) -> None:
        side = self.image_side
        write_json(checkpoint / "preprocessor_config.json", {
            "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
            "image_mean": CLIP_MEAN, "image_processor_type": "BlipImageProcessor", "image_std": CLIP_STD,
            "processor_class": "InstructBlipProcessor", "resample": BICUBIC, "rescale_factor": 1 / 255,
            "size": {"height": side, "width": side},
        })
        write_json(checkpoint / "processor_config.json", {
            "num_query_tokens": self.num_query_tokens, "processor_class": "InstructBlipProcessor",
        })

    def load_processor(self, checkpoint: Path, backend: str) -> Any:
        tokenizer, qformer = (transformers.PreTrainedTokenizerFast.from_pretrained(folder)
                              for folder in self.tokenizer_folders(checkpoint).values())
        return transformers.InstructBlipProcessor(
            load_image_processor(checkpoint, backend), tokenizer, qformer, num_query_tokens=self.num_query_tokens
        )

    def lora_config(self) -> peft.LoraConfig:
        return peft.LoraConfig(
            r=4, lora_alpha=8, lora_dropout=0.0, bias="none",
            target_modules=r"(language_model\..*\.(q_proj|v_proj))|(qformer\..*\.(query|value))",
        )

    def config_mistakes(self) -> dict[str, Callable[[Json], None]]:
        tanh = "gelu_pytorch_tanh"
        return {
            "vision_config.hidden_act=quick_gelu": setting("vision_config.hidden_act", "quick_gelu"),
            "vision_config.layer_norm_eps=1e-5": setting("vision_config.layer_norm_eps", 1e-5),
            "qformer_config.hidden_act=gelu_pytorch_tanh": setting("qformer_config.hidden_act", tanh),
            "qformer_config.layer_norm_eps=1e-5": setting("qformer_config.layer_norm_eps", 1e-5),
            "text_config.rope_theta=500000": setting("text_config.rope_theta", 500000.0),
            "text_config.rms_norm_eps=1e-5": setting("text_config.rms_norm_eps", 1e-5),
        }
