#pragma once
/// Pictures made small, to be shown.

#include <string>

#include "data/image.hpp"

namespace mcit {

/// No larger than `longest` pixels on its longer side, keeping its proportions; smaller ones stay as they
/// are.
Image thumbnail(const Image& image, int longest);

/// A baseline JPEG. @param quality of libjpeg, 1 to 100 @throws DataError for a picture without pixels
std::string encode_jpeg(const Image& image, int quality);

}  // namespace mcit
