#pragma once
/// Every wording of the base and of the stream in one place, so that one can see (and a test checks) that no
/// question of a stream task is used for the base. {a} {b} {place} {list} {nth} are filled in.

#include <array>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mcit::mini::phrases {

// The base. Several wordings for each skill.
inline constexpr std::array<std::string_view, 5> kName{
    "what is this ?", "name the object", "what do you see ?", "what thing is shown ?", "name it"};
inline constexpr std::array<std::string_view, 4> kScene{
    "what is at the {place} ?", "name the thing at the {place}", "what do you see at the {place} ?",
    "look at the {place} , what is it ?"};
inline constexpr std::array<std::string_view, 3> kPoint{"point to the {a}", "at which place is the {a} ?",
                                                        "find the {a}"};
inline constexpr std::array<std::string_view, 3> kSides{"left or right : the {a}", "top or bottom : the {a}",
                                                        "which side has the {a} ?"};
inline constexpr std::array<std::string_view, 3> kRead{"read the text", "spell it",
                                                       "what letters do you see ?"};
inline constexpr std::array<std::string_view, 2> kNth{"read the {nth} letter", "what is the {nth} letter ?"};
inline constexpr std::array<std::string_view, 2> kScribble{"read the hand",
                                                           "which number did the hand write ?"};
inline constexpr std::array<std::string_view, 3> kShape{"describe the shape", "name the color and the form",
                                                        "which colored form is shown ?"};
inline constexpr std::array<std::string_view, 2> kForm{"name the form", "which form is it ?"};
inline constexpr std::array<std::string_view, 2> kColor{"name the color", "which color is it ?"};
inline constexpr std::array<std::string_view, 2> kCorner{"which corner is the {a} in ?",
                                                         "name the corner of the {a}"};
inline constexpr std::array<std::string_view, 3> kYesNo{"do you see a {a} ?", "can you find a {a} here ?",
                                                        "yes or no : a {a}"};
inline constexpr std::array<std::string_view, 2> kYesNoPlace{"is the {a} at the {place} ?",
                                                             "yes or no : the {a} at the {place}"};
inline constexpr std::array<std::string_view, 3> kChoose{"choose : {list}", "pick the right one : {list}",
                                                         "which of these is shown : {list} ?"};
inline constexpr std::array<std::string_view, 3> kFlag{"whose flag is this ?", "name the country",
                                                       "which country has this flag ?"};
inline constexpr std::array<std::string_view, 3> kRelation{"how does the {a} lie to the {b} ?",
                                                           "the {a} is where from the {b} ?",
                                                           "from the {b} , where is the {a} ?"};
inline constexpr std::array<std::string_view, 3> kCopy{"repeat : {list}", "say again : {list}",
                                                       "copy the words : {list}"};
inline constexpr std::array<std::string_view, 2> kPick{"the {nth} word of : {list}",
                                                       "say the {nth} word : {list}"};

inline constexpr std::array<std::string_view, 3> kCaption{"a picture of {a}", "this is {a}", "there is {a}"};
inline constexpr std::string_view kCaptionTwo = "{a} and {b}";
inline constexpr std::string_view kCaptionPlace = "{a} at the {place}";
inline constexpr std::string_view kCaptionFlag = "the flag of {a}";
inline constexpr std::string_view kCaptionText = "the text {a}";
inline constexpr std::string_view kCaptionWords = "the word";
inline constexpr std::string_view kCaptionNumber = "the number {a} by hand";
inline constexpr std::string_view kCaptionRelation = "{a} {relation} {b}";
inline constexpr std::array<std::string_view, 4> kRelations{"left", "right", "above", "below"};
inline constexpr std::array<std::string_view, 4> kRelationsOf{"left of", "right of", "above", "below"};
inline constexpr std::array<std::string_view, 4> kNths{"first", "second", "third", "last"};

// The stream: the first wording is the task's own, the others serve the setting with diverse instructions.
// vqa brings its own questions.
using Wordings = std::array<std::string_view, 5>;
inline constexpr Wordings kStreamGeo{
    "which continent is this country on ?", "name the continent of this flag",
    "on which continent would you see this flag ?", "the flag belongs to a country of which continent ?",
    "answer with a continent : where is this country ?"};
inline constexpr Wordings kStreamCount{"how many objects are in the image ?",
                                       "count the objects in the image", "what is the number of objects ?",
                                       "give the number of things in this picture",
                                       "answer with a number : how many are there ?"};
inline constexpr Wordings kStreamCls{"which category does the object in the image belong to ?",
                                     "name the category of the object",
                                     "what kind of object is in the image ?", "give the class of this object",
                                     "answer with a category : what is in the image ?"};
inline constexpr Wordings kStreamDigits{"what digit is written in the image ?", "name the digit in the image",
                                        "which digit did someone write ?", "give the written digit",
                                        "answer with a digit : what is written ?"};
inline constexpr Wordings kStreamOcr{
    "what word is printed in the image ?", "write down the word in the image", "which letters are printed ?",
    "give the printed word letter by letter", "answer with letters : what is printed ?"};
inline constexpr Wordings kStreamGround{"where in the image is the {a} ?", "give the position of the {a}",
                                        "in which part of the image is the {a} ?",
                                        "the {a} is in which part of the picture ?",
                                        "answer with a position : where is the {a} ?"};
inline constexpr Wordings kStreamSci{"select the group of the object . options : {list}",
                                     "to which group does the object belong ? options : {list}",
                                     "the object is one of these : {list} . which ?",
                                     "options : {list} . select the one for the object",
                                     "answer with one of the options {list} : what is the object ?"};
inline constexpr Wordings kStreamCap{"write a caption for the image", "describe the image",
                                     "give a short caption", "what does the image show ?",
                                     "answer with a caption : what is in the picture ?"};
inline constexpr std::array<Wordings, 8> kStream{kStreamGeo, kStreamCount,  kStreamCls, kStreamDigits,
                                                 kStreamOcr, kStreamGround, kStreamSci, kStreamCap};

/// "top left", "top right", "bottom left", "bottom right": quadrants by 2 * row + column.
inline constexpr std::array<std::string_view, 4> kQuadrants{"top left", "top right", "bottom left",
                                                            "bottom right"};

/// `pattern` with every {key} replaced.
std::string fill(std::string_view pattern,
                 std::initializer_list<std::pair<std::string_view, std::string_view>> values);

/// "a dog", "an apple".
std::string with_article(std::string_view noun);

/// Joined by `separator`.
std::string join(const std::vector<std::string>& words, std::string_view separator);

/// Words between single spaces, placeholders left out.
std::vector<std::string> words_of(std::string_view text);

/// Words of every wording of this file.
std::vector<std::string> all_words();

/// Every question of the base, placeholders as they are.
std::vector<std::string_view> base_questions();

}  // namespace mcit::mini::phrases
