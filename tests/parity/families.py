"""All families by name."""

from __future__ import annotations

from family import Family
from family_instructblip import InstructBlip
from family_llava import Llava, LlavaDino, LlavaOnevision
from family_smolvlm import SmolVlm
from family_text import Llama, Qwen2, SmolLm2
from family_towers import Clip, Siglip

FAMILIES: dict[str, Family] = {family.name: family for family in (
    Llava(), LlavaDino(), LlavaOnevision(), SmolVlm(), InstructBlip(), Llama(), SmolLm2(), Qwen2(), Clip(), Siglip(),
)}
