# Streams a small suite through the built-in model with @name@ and reads the result.
set(run "${CMAKE_CURRENT_BINARY_DIR}/run-@name@")
file(REMOVE_RECURSE "${run}")
execute_process(COMMAND "${mcit}" run --suite smoke --strategy @name@ --plugin-dir "${plugins}" --out "${run}"
  --set train.steps=5 --set threads=1 RESULT_VARIABLE code)
if(NOT code EQUAL 0)
  message(FATAL_ERROR "mcit run ended with ${code}")
endif()
file(READ "${run}/result.json" result)
string(JSON complete GET "${result}" complete)
string(JSON rows LENGTH "${result}" matrix)
if(NOT complete OR NOT rows EQUAL 4)
  message(FATAL_ERROR "the run is not complete: ${rows} rows of the matrix, complete = ${complete}")
endif()
